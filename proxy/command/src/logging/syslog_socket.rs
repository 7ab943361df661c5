//! Local syslog, such as `/dev/log`: a Unix datagram socket that takes a line in each datagram.

use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Priority of the lines: facility authpriv (10), severity informational (6).
const PRIORITY: u8 = 10 * 8 + 6;

/// Writer that sends each line to the local syslog, and to another place if that does not take it.
pub(super) struct SyslogSocket<W = io::Stderr> {
    path: PathBuf,
    socket: UnixDatagram,
    /// Where lines go that syslog does not take, so that none is lost in silence.
    fallback: W,
}

/// Whether a path is a socket, or a link to one.
pub(super) fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.file_type().is_socket())
}

impl<W: Write> SyslogSocket<W> {
    /// Connects to the socket at a path.
    ///
    /// # Errors
    /// When nobody listens there, or this process may not write to it, or it is no socket for datagrams.
    pub(super) fn open(path: &Path, fallback: W) -> io::Result<Self> {
        Ok(Self { socket: connected(path)?, path: path.to_owned(), fallback })
    }

    /// Sends a line; once more on a new socket if the old one leads nowhere, as after a restart of syslog.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        match self.socket.send(datagram) {
            Ok(_) => Ok(()),
            // It is there, and its queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
            Err(_) => {
                self.socket = connected(&self.path)?;
                self.socket.send(datagram).map(drop)
            }
        }
    }
}

/// Each call writes one line, as the log makes it.
impl<W: Write> Write for SyslogSocket<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut datagram = format!("<{PRIORITY}>trunkline[{}]: ", std::process::id()).into_bytes();
        datagram.extend_from_slice(line.trim_ascii_end());
        if let Err(error) = self.send(&datagram) {
            // The next line tries again.
            let problem = format!("--audit-log {}: not taken by syslog ({error}): ", self.path.display());
            self.fallback.write_all(&[problem.as_bytes(), line.trim_ascii_end(), b"\n"].concat())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a socket that never waits: a syslog that hangs must not hold the thread of the admin port.
fn connected(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path of a socket of a test, at which nobody listens yet.
    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("trunkline-syslog-{name}-{}", std::process::id()))
    }

    fn listen(path: &Path) -> UnixDatagram {
        let syslog = UnixDatagram::bind(path).unwrap();
        syslog.set_nonblocking(true).unwrap();
        syslog
    }

    fn received(syslog: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 1024];
        let length = syslog.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    #[test]
    fn each_line_is_a_datagram_also_after_syslog_was_restarted_and_none_is_lost_while_it_is_away() {
        let path = path("restarted");
        assert!(!is_socket(&path));
        let syslog = listen(&path);
        assert!(is_socket(&path));
        let mut log = SyslogSocket::open(&path, Vec::new()).unwrap();
        let expected = |line: &str| Some(format!("<86>trunkline[{}]: {line}", std::process::id()));
        for line in ["one", "two"] {
            log.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        assert_eq!([received(&syslog), received(&syslog), received(&syslog)], [expected("one"), expected("two"), None]);

        drop(syslog);
        std::fs::remove_file(&path).unwrap();
        log.write_all(b"three\n").unwrap();
        let kept = String::from_utf8(log.fallback.clone()).unwrap();
        assert!(kept.starts_with("--audit-log ") && kept.ends_with(": three\n"), "{kept}");

        let syslog = listen(&path);
        log.write_all(b"four\n").unwrap();
        assert_eq!([received(&syslog), received(&syslog)], [expected("four"), None]);
        assert_eq!(log.fallback.len(), kept.len(), "it has gone to one place");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_syslog_that_takes_nothing_holds_nobody_and_its_lines_are_kept() {
        let path = path("full");
        let syslog = listen(&path);
        let mut log = SyslogSocket::open(&path, Vec::new()).unwrap();
        let mut written = 0;
        while log.fallback.is_empty() && written < 100_000 {
            log.write_all(format!("line {written}\n").as_bytes()).unwrap();
            written += 1;
        }
        let kept = String::from_utf8(log.fallback.clone()).unwrap();
        assert!(kept.ends_with(&format!(": line {}\n", written - 1)), "{kept}");
        let taken = std::iter::from_fn(|| received(&syslog)).count();
        assert_eq!(taken + 1, written);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_path_at_which_no_syslog_listens_is_an_error() {
        let path = path("nobody");
        drop(listen(&path));
        assert!(is_socket(&path) && SyslogSocket::open(&path, Vec::new()).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
