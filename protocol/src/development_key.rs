//! The access key of this machine, so that everything on loopback works without any configuration.
//!
//! Whichever end starts first makes it: 32 random bytes in a file that only this user can read. This is the one
//! module of the crate that touches the disk, because two crates need exactly the same file.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::key::{AccessKey, AccessKeyError};

/// Error of a development key that can't be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevelopmentKeyError {
    /// No state folder is known.
    #[error(
        "no state folder is known: set XDG_STATE_HOME or HOME, or give an access key (`trunkline token key` makes one)"
    )]
    NoFolder,
    /// The file can't be read or made.
    #[error(
        "the development key {path} can't be read or made: give an access key instead (`trunkline token key` makes one)"
    )]
    File {
        /// Path of the key file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the development key {path} is no key: remove the file, and it will be made anew")]
    Damaged {
        /// Path of the key file.
        path: PathBuf,
        /// Reason why its text is no key.
        #[source]
        source: AccessKeyError,
    },
}

/// Returns the path of the key: `trunkline/development.key` in the user's state folder.
///
/// # Errors
/// When the environment names no such folder.
pub fn path() -> Result<PathBuf, DevelopmentKeyError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .or_else(|| set("LOCALAPPDATA"))
        .map(|folder| folder.join("trunkline").join("development.key"))
        .ok_or(DevelopmentKeyError::NoFolder)
}

/// Reads the key at `path`, or makes it if there is none. Two processes that start together get the same key.
///
/// # Errors
/// When the file can neither be read nor made, or holds no key.
pub fn read_or_make(path: &Path) -> Result<AccessKey, DevelopmentKeyError> {
    let failed = |source| DevelopmentKeyError::File { path: path.into(), source };
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(path).map_err(failed)?;
            fs::read_to_string(path).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    AccessKey::new(&text).map_err(|source| DevelopmentKeyError::Damaged { path: path.into(), source })
}

/// Writes a fresh key beside `path` and links it there, so that nobody ever reads half a key and the first one wins.
fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension(format!("{}.draft", crate::id::random_id()));
    let written = write_private(&draft).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    fs::remove_file(&draft)?;
    written
}

fn write_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{}", AccessKey::random().expose())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("trunkline-key-{}", crate::id::random_id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_first_to_come_makes_it_and_all_read_the_same() {
        let path = folder().join("deep/development.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| read_or_make(&path).unwrap())).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| key == &keys[0]));
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no draft is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn only_this_user_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let path = folder().join("development.key");
        read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let path = folder().join("development.key");
        fs::write(&path, "short").unwrap();
        let error = read_or_make(&path).unwrap_err();
        assert!(error.to_string().contains("development.key"), "{error}");
    }
}
