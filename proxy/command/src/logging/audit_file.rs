//! File of a separate audit log. Lines that can't be written go to standard error with the reason, and are counted.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing::{Level, error, info};
use trunkline_process::{LineLosses, LinePriority, LineSink, count_lost_audit_line};

use super::console::{formatted, write_error};
use super::log_line::LOG_TARGET;

#[cfg(unix)]
const AUDIT_LOG_MODE: u32 = 0o600;

/// File in append mode.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    /// Set if a failed write may have left the start of a line.
    is_torn: bool,
}

impl AuditFile {
    /// Opens a file. A new file is readable only by its owner.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open_file(path)?, is_torn: false })
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, AUDIT_LOG_MODE);
    options.open(path)
}

impl LineSink for AuditFile {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
        }
        self.is_torn = true;
        self.file.write_all(line)?;
        self.is_torn = false;
        Ok(())
    }

    fn reopen(&mut self) {
        let Self { path, file, is_torn } = self;
        match open_file(path) {
            Ok(opened) => {
                (*file, *is_torn) = (opened, false);
                info!(target: LOG_TARGET, path = %path.display(), "audit log reopened");
            }
            Err(error) => {
                error!(
                    target: LOG_TARGET,
                    path = %path.display(),
                    %error,
                    "cannot reopen the audit log: the old file stays in use"
                );
            }
        }
    }
}

pub(super) struct AuditLosses(pub(super) PathBuf);

impl LineLosses for AuditLosses {
    fn lost(&self, line: &[u8], _priority: LinePriority, error: &io::Error) {
        count_lost_audit_line();
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        let text = format!("--audit-log {}: not written ({error}): {line}", self.0.display());
        write_error(&formatted(Level::ERROR, &text).unwrap_or(text));
    }

    fn notice(&self, _lost: u64) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_new_audit_log_is_its_owners_alone_and_lines_are_appended() {
        use std::os::unix::fs::PermissionsExt;

        let path = std::env::temp_dir().join(format!("trunkline-audit-{}", std::process::id()));
        for line in ["one\n", "two\n"] {
            AuditFile::open(&path).unwrap().write_line(line.as_bytes()).unwrap();
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode & 0o777), ("one\ntwo\n", 0o600));
        std::fs::remove_file(&path).unwrap();
        assert!(AuditFile::open(&path.join("none")).is_err());
    }

    #[test]
    fn a_file_that_was_moved_is_left_once_it_is_opened_again() {
        let path = std::env::temp_dir().join(format!("trunkline-moved-{}", std::process::id()));
        let moved = path.with_extension("1");
        let mut place = AuditFile::open(&path).unwrap();
        place.write_line(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        place.write_line(b"two\n").unwrap();
        place.reopen();
        place.write_line(b"three\n").unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&moved).as_str(), read(&path).as_str()), ("one\ntwo\n", "three\n"));
        [path, moved].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_of_each_line() {
        let mut place = AuditFile::open(Path::new("/dev/full")).unwrap();
        for _ in 0..2 {
            let error = place.write_line(b"one\n").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}
