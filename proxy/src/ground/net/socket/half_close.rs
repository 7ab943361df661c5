//! Graceful close of a socket while the peer may be sending.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Time for the peer to see the end and close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes ignored in the meantime. A peer that sends more is cut off.
const IGNORED_MAX_BYTES: usize = 64 * 1024;

/// Closes the write direction, reads until the peer closes, and drops the socket.
///
/// Dropping it immediately would answer data in flight with a reset, which discards data that the peer has not yet
/// read. Fails if the socket fails or the peer does not close in time.
pub(crate) async fn half_close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let closed = timeout(CLOSE_TIMEOUT, async {
        stream.shutdown().await?;
        let (mut ignored, mut left) = ([0; 1024], IGNORED_MAX_BYTES);
        loop {
            match stream.read(&mut ignored).await? {
                0 => return Ok(()),
                count => left = left.saturating_sub(count),
            }
            if left == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    });
    closed.await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn ends() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, far)
    }

    #[tokio::test]
    async fn a_request_that_meets_the_close_sees_its_end_and_no_reset() {
        let (near, mut far) = ends().await;
        far.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let (closed, read) = tokio::join!(half_close(near), async {
            let read = far.read_to_end(&mut rest).await;
            // Arrives when it is no longer read.
            far.write_all(b"POST / HTTP/1.1\r\n\r\n").await?;
            far.shutdown().await?;
            read
        });
        assert_eq!((closed.is_ok(), read.unwrap()), (true, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_neither_closes_nor_stops_sending_is_left() {
        let (near, _far) = tokio::io::duplex(64);
        assert_eq!(half_close(near).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (near, mut far) = tokio::io::duplex(64);
        let (closed, _) = tokio::join!(half_close(near), async { while far.write_all(&[0; 64]).await.is_ok() {} });
        assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
