//! Opens a client's socket from a given source address, and defines all reasons for failed connects.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

/// Reason for a failed connect. Its text is the cause used for counting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no free port or file")]
    Exhausted,
    #[error("connection refused")]
    Refused,
    #[error("connection reset")]
    Reset,
    #[error("timed out")]
    TimedOut,
    #[error("closed by the server while connecting")]
    Closed,
    #[error("negotiate answered {0}")]
    Negotiate(String),
    #[error("upgrade answered {0}")]
    Upgrade(String),
    /// A failed request of an HTTP transport, by method.
    #[error("{0} answered {1}")]
    Request(&'static str, String),
    #[error("hub handshake refused: {0}")]
    Handshake(String),
    #[error("the access token fits into no header")]
    Token,
    #[error("socket: {0}")]
    Socket(io::ErrorKind),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Self::Exhausted,
            // Too many open files has no error kind: EMFILE, ENFILE.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => Self::Exhausted,
            kind => Self::Socket(kind),
        }
    }
}

/// Opens a socket to a server. Without a source, the system chooses the address.
pub(crate) async fn open(server: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        // Allows ports of ended sockets that the system still holds.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_client_comes_from_the_address_that_it_was_given() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source = "127.1.0.2".parse().unwrap();
        let _client = open(listener.local_addr().unwrap(), Some(source)).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from.ip(), source);
    }

    #[test]
    fn causes_are_told_apart() {
        let cause = |kind| ConnectError::from(io::Error::from(kind)).to_string();
        assert_eq!(cause(io::ErrorKind::ConnectionRefused), "connection refused");
        assert_eq!(ConnectError::from(io::Error::from_raw_os_error(24)).to_string(), "no free port or file");
    }
}
