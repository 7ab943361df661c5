//! Client socket below an endless response, such as an event stream, after an HTTP server has sent the head.
//!
//! ```text
//!  deliveries ─► frames ─► translation ─► TCP ──► client
//!  reading task ◄─ pipe ◄─ the client's requests ─┘
//! ```
//!
//! Messages are written directly, as to a WebSocket. Translation works on any part of a frame; output not accepted by
//! the socket, at most that of [`PIECE_BYTES`] of frames, is kept here.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;
use trunkline_protocol::cause::Cause;

use super::boxed_socket::{BoxedSocket, SocketStream, read_now};

/// Maximum bytes of frames translated per step.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes a client may send after its request. They are ignored, because the response ends the connection. Beyond this,
/// the socket is closed.
const UNREAD_MAX_BYTES: usize = 512;

thread_local! {
    /// Buffer for one translation, shared by all deliveries of the thread.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Translates frames to response bytes. Each call continues the previous one.
pub(crate) trait Translate {
    /// Appends the translation of these bytes, which may be any part of frames.
    fn translate(&mut self, frames: &[u8], out: &mut Vec<u8>);

    /// Whether the response is complete.
    fn is_ended(&self) -> bool;
}

/// TCP socket below a response. All methods take `&self`, because a shard is one thread.
pub(crate) struct AnswerSocket {
    stream: TcpStream,
    /// Bytes received after the request.
    unread: Cell<usize>,
    /// Pipe for data that the client sends in separate requests.
    requests: RefCell<BoxedSocket>,
    answer: RefCell<Answer>,
}

struct Answer {
    translation: Box<dyn Translate>,
    /// Translated bytes not accepted by the socket.
    unsent: BytesMut,
}

impl AnswerSocket {
    /// Continues after the head of a response. `requests` carries the client's data.
    pub(crate) fn new(
        stream: TcpStream,
        requests: impl SocketStream + 'static,
        translation: impl Translate + 'static,
    ) -> Self {
        let answer = Answer { translation: Box::new(translation), unsent: BytesMut::new() };
        let requests = RefCell::new(BoxedSocket::new(requests));
        Self { stream, unread: Cell::new(0), requests, answer: RefCell::new(answer) }
    }

    /// Reads the client's data from its requests. The end of either side ends both. After a complete response only a
    /// close by the client counts, because it may still be reading.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.answer.borrow().translation.is_ended()
            && let Poll::Ready(read) = self.requests.borrow_mut().poll_read(cx, buffer)
        {
            return Poll::Ready(read);
        }
        let mut unread = [0; UNREAD_MAX_BYTES];
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match read_now(&self.stream, &mut unread) {
                Ok(0) => return Poll::Ready(Err(io::Error::new(ErrorKind::UnexpectedEof, Cause::SocketEnded))),
                Ok(count) => self.unread.set(self.unread.get() + count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.unread.get() >= UNREAD_MAX_BYTES {
                return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, Cause::HubProtocol)));
            }
        }
    }

    /// Translates bytes and writes them without blocking. Returns the number of bytes translated.
    ///
    /// # Errors
    /// `WouldBlock` while earlier output is pending; otherwise the socket failed.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            let taken = self.seal(slices, scratch)?;
            let sent = match SockRef::from(&self.stream).send(scratch) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                sent => sent?,
            };
            self.keep_unsent(scratch.get(sent..).unwrap_or_default());
            scratch.shrink_to(PIECE_BYTES);
            Ok(taken)
        })
    }

    /// Translates bytes once no output is pending.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(self.try_write(slices))
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut answer = self.answer.borrow_mut();
        while !answer.unsent.is_empty() {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(&answer.unsent) {
                Ok(sent) => answer.unsent.advance(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        answer.unsent = BytesMut::new();
        drop(answer);
        self.end_if_complete();
        Poll::Ready(Ok(()))
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.answer.borrow().unsent.is_empty()
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Appends translated bytes to `sealed`, for the caller to write to the descriptor, and returns the number of bytes
    /// translated. Fails with `WouldBlock` while earlier output is pending.
    pub(super) fn seal(&self, slices: &[IoSlice<'_>], sealed: &mut Vec<u8>) -> io::Result<usize> {
        let mut answer = self.answer.borrow_mut();
        if !answer.unsent.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for slice in slices {
            let piece = slice.get(..slice.len().min(PIECE_BYTES - taken)).unwrap_or_default();
            answer.translation.translate(piece, sealed);
            taken += piece.len();
            if taken == PIECE_BYTES {
                break;
            }
        }
        if answer.translation.is_ended() {
            // Cut before the end is sent: a client that has seen the end would otherwise send to a closed connection.
            self.requests.borrow_mut().cut();
        }
        Ok(taken)
    }

    pub(super) fn keep_unsent(&self, sealed: &[u8]) {
        if sealed.is_empty() {
            self.end_if_complete();
        } else {
            self.answer.borrow_mut().unsent.extend_from_slice(sealed);
        }
    }

    /// Shuts down both directions; the reading task sees the end. A full socket is reset, or the kernel would keep
    /// offering unread data.
    pub(super) fn cut(&self) {
        if self.has_unsent() {
            // Fails only if the client has already closed.
            drop(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
        }
        // Fails only if the peer has already closed; the reader sees that, too.
        drop(SockRef::from(&self.stream).shutdown(Shutdown::Both));
        self.requests.borrow_mut().cut();
    }

    /// Closes the write direction after a complete response, which is the connection's last.
    fn end_if_complete(&self) {
        let answer = self.answer.borrow();
        if answer.translation.is_ended() && answer.unsent.is_empty() {
            // Fails only if the client has already closed.
            drop(SockRef::from(&self.stream).shutdown(Shutdown::Write));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;

    use super::*;

    /// Doubles each byte, and ends the response after a zero.
    #[derive(Default)]
    struct Twice(bool);

    impl Translate for Twice {
        fn translate(&mut self, frames: &[u8], out: &mut Vec<u8>) {
            out.extend(frames.iter().flat_map(|byte| [*byte; 2]));
            self.0 |= frames.contains(&0);
        }

        fn is_ended(&self) -> bool {
            self.0
        }
    }

    /// The socket, the client's end, and the end of its request pipe.
    async fn ends() -> (AnswerSocket, TcpStream, DuplexStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, requests) = duplex(64);
        let answer = AnswerSocket::new(listener.accept().await.unwrap().0, near, Twice::default());
        (answer, client, requests)
    }

    async fn read(socket: &AnswerSocket) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 8];
        let count = poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await?;
        Ok(buffer[..count].to_vec())
    }

    #[tokio::test]
    async fn messages_go_down_translated_and_come_up_by_requests() {
        let (socket, mut client, mut requests) = ends().await;
        assert_eq!(socket.try_write(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), 3);
        let mut seen = [0; 6];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"aabbcc");
        client.write_all(b"GET / HTTP/1.1").await.unwrap();
        requests.write_all(b"up").await.unwrap();
        assert_eq!(read(&socket).await.unwrap(), b"up", "what comes behind the request is dropped");
        drop(client);
        let gone = read(&socket).await.unwrap_err();
        assert!(gone.get_ref().is_some_and(|cause| cause.downcast_ref() == Some(&Cause::SocketEnded)), "{gone}");
    }

    #[tokio::test]
    async fn what_the_client_does_not_read_waits_and_comes_in_its_order() {
        let (socket, mut client, _requests) = ends().await;
        let large: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 250) as u8 + 1).collect();
        let (mut written, mut seen) = (0, Vec::new());
        while !socket.has_unsent() {
            written += socket.try_write(&[IoSlice::new(&large[written..])]).unwrap();
        }
        let refused = socket.try_write(&[IoSlice::new(b"a")]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        let ((), _) = tokio::join!(
            async {
                while written < large.len() {
                    let rest = [IoSlice::new(&large[written..])];
                    written += poll_fn(|cx| socket.poll_write(cx, &rest)).await.unwrap();
                }
                poll_fn(|cx| socket.poll_write(cx, &[IoSlice::new(&[0])])).await.unwrap();
                poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
            },
            client.read_to_end(&mut seen),
        );
        assert_eq!(seen.pop(), Some(0), "the end of the answer is that of the connection");
        assert_eq!(seen.pop(), Some(0));
        assert!(seen.iter().copied().eq(large.iter().flat_map(|byte| [*byte; 2])));
    }

    #[tokio::test]
    async fn a_client_that_keeps_sending_after_its_request_is_closed() {
        let (socket, mut client, _requests) = ends().await;
        client.write_all(&[b'x'; 8 * UNREAD_MAX_BYTES]).await.unwrap();
        let error = read(&socket).await.unwrap_err();
        assert!(error.get_ref().is_some_and(|cause| cause.downcast_ref() == Some(&Cause::HubProtocol)), "{error}");
    }

    #[tokio::test]
    async fn a_complete_answer_ends_the_requests_before_it_leaves_and_waits_for_the_end_of_the_client() {
        let (socket, mut client, mut requests) = ends().await;
        let mut sealed = Vec::new();
        assert_eq!(socket.seal(&[IoSlice::new(&[0])], &mut sealed).unwrap(), 1);
        assert!(matches!(requests.read(&mut [0; 8]).now_or_never(), Some(Ok(0))), "requests have an end at once");
        assert!(read(&socket).now_or_never().is_none(), "the client has yet to read the end");
        socket.keep_unsent(&sealed);
        poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [0, 0]);
        drop(client);
        read(&socket).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_cut_ends_both_and_so_does_the_end_of_the_requests() {
        let (socket, mut client, _requests) = ends().await;
        socket.cut();
        assert_eq!(read(&socket).await.unwrap(), b"");
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        let (socket, _client, requests) = ends().await;
        drop(requests);
        assert_eq!(read(&socket).await.unwrap(), b"");
    }
}
