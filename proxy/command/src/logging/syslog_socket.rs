//! Local syslog, such as `/dev/log`: a Unix datagram socket that accepts a line per datagram.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Syslog priority: facility authpriv (10), severity informational (6).
const PRIORITY: u8 = 10 * 8 + 6;

#[derive(Debug)]
pub(super) struct SyslogSocket {
    path: PathBuf,
    socket: UnixDatagram,
}

pub(super) fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.file_type().is_socket())
}

impl SyslogSocket {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { socket: connected(path)?, path: path.to_owned() })
    }

    /// Sends a line. Fails if syslog is unavailable or its queue is full; the next line tries again.
    pub(super) fn send_line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut datagram = format!("<{PRIORITY}>trunkline[{}]: ", std::process::id()).into_bytes();
        datagram.extend_from_slice(line.trim_ascii_end());
        self.send(&datagram)
    }

    /// Sends a line, and retries once on a new socket, as after a restart of syslog.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        match self.socket.send(datagram) {
            Ok(_) => Ok(()),
            // Syslog is available, but its queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
            Err(_) => {
                self.socket = connected(&self.path)?;
                self.socket.send(datagram).map(drop)
            }
        }
    }
}

/// Returns a non-blocking socket: a stuck syslog must not delay lines that can also go to standard error.
fn connected(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path of a test socket without a listener.
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
    fn each_line_is_a_datagram_also_after_syslog_was_restarted() {
        let path = path("restarted");
        assert!(!is_socket(&path));
        let syslog = listen(&path);
        assert!(is_socket(&path));
        let mut log = SyslogSocket::open(&path).unwrap();
        let expected = |line: &str| Some(format!("<86>trunkline[{}]: {line}", std::process::id()));
        for line in ["one", "two"] {
            log.send_line(format!("{line}\n").as_bytes()).unwrap();
        }
        assert_eq!([received(&syslog), received(&syslog), received(&syslog)], [expected("one"), expected("two"), None]);

        drop(syslog);
        std::fs::remove_file(&path).unwrap();
        assert!(log.send_line(b"three\n").is_err());

        let syslog = listen(&path);
        log.send_line(b"four\n").unwrap();
        assert_eq!([received(&syslog), received(&syslog)], [expected("four"), None]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_stuck_syslog_delays_no_caller() {
        let path = path("full");
        let syslog = listen(&path);
        let mut log = SyslogSocket::open(&path).unwrap();
        let sent = (0..100_000).take_while(|line| log.send_line(format!("line {line}\n").as_bytes()).is_ok()).count();
        assert_eq!(std::iter::from_fn(|| received(&syslog)).count(), sent);
        assert!(sent < 100_000);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_path_at_which_no_syslog_listens_is_an_error() {
        let path = path("nobody");
        drop(listen(&path));
        assert!(is_socket(&path) && SyslogSocket::open(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
