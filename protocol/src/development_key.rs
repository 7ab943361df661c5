//! The access key of this machine, so that everything on loopback works without configuration.
//!
//! The first process to start creates the key: 32 random bytes in a file that only the current user can read. A file
//! that others can read or have created is rejected, because they may know the key. This is the crate's only disk
//! access.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::key::{AccessKey, AccessKeyError};

/// Maximum size of a key file.
const FILE_MAX_BYTES: u64 = 4 * 1024;

/// Error reading or creating the development key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevelopmentKeyError {
    /// No state folder is configured.
    #[error(
        "there is no state folder: set XDG_STATE_HOME or HOME, or give an access key (`trunkline token key` makes one)"
    )]
    NoFolder,
    /// The file can't be read or created.
    #[error(
        "the development key {path} can't be read or created: give an access key instead (`trunkline token key` makes \
         one)"
    )]
    File {
        /// Path of the key file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Others may know or have created the key.
    #[error(
        "the development key {path} {problem}: remove the file, which is then created again, or give an access key \
         (`trunkline token key` makes one)"
    )]
    Exposed {
        /// Path of the key file.
        path: PathBuf,
        /// Problem with the file, as the middle of a sentence.
        problem: &'static str,
    },
    /// The file holds no valid key.
    #[error("the development key {path} is invalid: remove the file, which is then created again")]
    Damaged {
        /// Path of the key file.
        path: PathBuf,
        /// Reason why its content is invalid.
        #[source]
        source: AccessKeyError,
    },
}

/// Path of the key file: `trunkline/development.key` in the user's state folder. Fails if the environment names no
/// state folder.
pub fn path() -> Result<PathBuf, DevelopmentKeyError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .or_else(|| set("LOCALAPPDATA"))
        .map(|folder| folder.join("trunkline").join("development.key"))
        .ok_or(DevelopmentKeyError::NoFolder)
}

/// Reads the key at `path`, or creates it if the file doesn't exist. Processes that start simultaneously get the same
/// key. Fails if the file can't be read or created, or holds no valid key.
pub fn read_or_make(path: &Path) -> Result<AccessKey, DevelopmentKeyError> {
    let failed = |source| DevelopmentKeyError::File { path: path.into(), source };
    let text = match read_key_file(path) {
        Err(KeyFileError::File(error)) if error.kind() == ErrorKind::NotFound => {
            make(path).map_err(failed)?;
            read_key_file(path)
        }
        other => other,
    };
    let text = text.map_err(|error| match error {
        KeyFileError::File(source) => failed(source),
        KeyFileError::Exposed(problem) => DevelopmentKeyError::Exposed { path: path.into(), problem },
    })?;
    AccessKey::new(&text).map_err(|source| DevelopmentKeyError::Damaged { path: path.into(), source })
}

enum KeyFileError {
    File(io::Error),
    /// Others may know or have created the key.
    Exposed(&'static str),
}

impl From<io::Error> for KeyFileError {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

fn read_key_file(path: &Path) -> Result<String, KeyFileError> {
    // Checked before opening, because opening a pipe would block.
    let entry = fs::symlink_metadata(path)?;
    if !entry.is_file() {
        return Err(KeyFileError::Exposed("is not a regular file"));
    }
    let file = File::open(path)?;
    check_private(&entry, &file.metadata()?).map_err(KeyFileError::Exposed)?;
    let mut text = String::new();
    file.take(FILE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Checks that the opened file is the inspected one, belongs to this user and is unreadable for others.
#[cfg(unix)]
fn check_private(entry: &fs::Metadata, opened: &fs::Metadata) -> Result<(), &'static str> {
    use std::os::unix::fs::MetadataExt;
    if (entry.dev(), entry.ino()) != (opened.dev(), opened.ino()) {
        return Err("was replaced while it was read");
    }
    let me = rustix::process::geteuid().as_raw();
    if opened.uid() != me && opened.uid() != 0 {
        return Err("belongs to another user, who can read it");
    }
    if opened.mode() & 0o077 != 0 {
        return Err("can be read or written by other users (its mode should be 600)");
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_private(_entry: &fs::Metadata, _opened: &fs::Metadata) -> Result<(), &'static str> {
    Ok(())
}

/// Writes a new key to a draft and links it to `path`: readers never see a partial key, and the first writer wins.
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
    fn the_first_process_creates_the_key_and_all_read_the_same() {
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
        write_private(&path).unwrap();
        fs::write(&path, "short").unwrap();
        let error = read_or_make(&path).unwrap_err();
        assert!(error.to_string().contains("development.key"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused_until_it_is_removed() {
        use std::os::unix::fs::PermissionsExt;
        let path = folder().join("development.key");
        let known = read_or_make(&path).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o660, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_or_make(&path).unwrap_err();
            assert!(matches!(error, DevelopmentKeyError::Exposed { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains("remove the file"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert_ne!(read_or_make(&path).unwrap(), known);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_refused_wherever_it_leads() {
        let folder = folder();
        let (path, elsewhere) = (folder.join("development.key"), folder.join("elsewhere"));
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(read_or_make(&path).unwrap_err(), DevelopmentKeyError::Exposed { .. }), "it leads nowhere");
        write_private(&elsewhere).unwrap();
        assert!(matches!(read_or_make(&path).unwrap_err(), DevelopmentKeyError::Exposed { .. }));
    }
}
