//! Byte stream through a channel: sealed when writing to the socket, opened when reading.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use snow::TransportState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::record::{Front, RECORD_MAX_BYTES, RecordError, Side, front, open_record, plain_length, seal};

/// Maximum number of bytes per read: several records.
const READ_MAX_BYTES: usize = 64 * 1024;

/// Bytes per read at low load, and before the first record, when the sender may not have the key.
const READ_MIN_BYTES: usize = 4 * 1024;

/// Maximum number of sealed bytes waiting for the socket before writers must wait.
const OUTPUT_MAX_BYTES: usize = 64 * 1024;

/// Byte stream through a channel over any socket. It holds no buffers while idle.
#[derive(Debug)]
pub struct ChannelStream<S> {
    socket: S,
    noise: TransportState,
    side: Side,
    /// Received bytes, still sealed.
    input: BytesMut,
    /// Bytes per read; grows under load.
    read_bytes: usize,
    /// Opened bytes, still unread.
    plain: BytesMut,
    output: BytesMut,
    is_over: bool,
}

impl<S> ChannelStream<S> {
    /// Creates a channel after its handshake; `early` holds bytes that arrived right after it.
    pub(crate) fn new(socket: S, noise: TransportState, side: Side, early: Bytes) -> Self {
        let (plain, output) = (BytesMut::new(), BytesMut::new());
        let read_bytes = READ_MIN_BYTES;
        Self { socket, noise, side, input: early.into(), read_bytes, plain, output, is_over: false }
    }
}

impl<S: AsyncWrite + Unpin> ChannelStream<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            if ready!(poll_write_buf(Pin::new(&mut self.socket), cx, &mut self.output))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        // An idle channel holds no buffer.
        self.output = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> ChannelStream<S> {
    /// Waits for the first record, which proves that the hello's sender has the key and did not replay the hello.
    pub(crate) async fn first_record(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut nothing = ReadBuf::new(&mut []);
            loop {
                if !self.plain.is_empty() || self.open_next(&mut nothing).map_err(invalid)? {
                    return Poll::Ready(Ok(()));
                }
                if self.is_over {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                ready!(self.poll_fill(cx, READ_MIN_BYTES))?;
            }
        })
        .await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, max_bytes: usize) -> Poll<io::Result<()>> {
        let bytes = self.read_bytes.min(max_bytes);
        self.input.reserve(bytes);
        match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input) {
            Poll::Ready(Ok(0)) if self.input.is_empty() => self.is_over = true,
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(read)) if read >= bytes => self.read_bytes = READ_MAX_BYTES.min(2 * bytes),
            Poll::Ready(Ok(read)) if read < bytes / 4 => self.read_bytes = READ_MIN_BYTES.max(bytes / 2),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                // An idle channel holds no buffer.
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Opens the next record into the buffer, with any excess into `plain`; `false` if more bytes are needed.
    fn open_next(&mut self, buffer: &mut ReadBuf<'_>) -> Result<bool, RecordError> {
        let sealed = match front(self.side, &mut self.input)? {
            Front::Record { sealed } => sealed,
            Front::Incomplete => return Ok(false),
            Front::Close => {
                self.is_over = true;
                self.input.clear();
                return Ok(false);
            }
        };
        let (from, length) = (self.input.get(..sealed).unwrap_or_default(), plain_length(sealed));
        if buffer.remaining() >= length {
            let opened = open_record(&mut self.noise, from, buffer.initialize_unfilled_to(length))?;
            buffer.advance(opened);
        } else {
            self.plain.resize(length, 0);
            let opened = open_record(&mut self.noise, from, &mut self.plain)?;
            self.plain.truncate(opened);
        }
        self.input.advance(sealed);
        Ok(true)
    }

    fn read_plain(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.plain.len().min(buffer.remaining());
        buffer.put_slice(self.plain.get(..length).unwrap_or_default());
        self.plain.advance(length);
        if self.plain.is_empty() {
            self.plain = BytesMut::new();
        }
    }
}

fn invalid(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + Unpin> AsyncRead for ChannelStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        loop {
            if !this.plain.is_empty() {
                this.read_plain(buffer);
            }
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.open_next(buffer).map_err(invalid)? {
                continue;
            }
            if this.is_over {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx, READ_MAX_BYTES))?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ChannelStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.output.len() >= OUTPUT_MAX_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        let mut taken = 0;
        for piece in bytes.chunks(RECORD_MAX_BYTES) {
            if this.output.len() >= OUTPUT_MAX_BYTES {
                break;
            }
            seal(&mut this.noise, this.side, piece, &mut this.output).map_err(io::Error::other)?;
            taken += piece.len();
        }
        // Bytes not written to the socket now are sent by a flush or before the next write.
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};

    use super::*;
    use crate::handshake::{HelloContents, Initiator, Responder, respond};

    /// Creates a channel over these sockets.
    fn pair<A, B>(near: A, far: B) -> (ChannelStream<A>, ChannelStream<B>) {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let peer_kind = PeerKind::NodeAdmin;
        let secret = keys.channel_secrets(peer_kind).next().unwrap();
        let contents = HelloContents { minute: 0, dialled: "node:8090".into() };
        let (initiator, hello) = Initiator::new(&secret.secret, peer_kind, &contents).unwrap();
        let Responder { noise: responder, answer, .. } = respond(Some(secret), peer_kind, &hello).unwrap();
        let near = ChannelStream::new(near, initiator.finish(&answer).unwrap(), Side::Client, Bytes::new());
        (near, ChannelStream::new(far, responder, Side::Server, Bytes::new()))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn data_arrives_unchanged_for_any_split(
            pieces in prop::collection::vec(0_usize..40_000, 1..6),
            room in 1_usize..70_000,
            read_bytes in 1_usize..70_000,
        ) {
            block_on(async {
                let (near, far) = duplex(room);
                let (mut near, mut far) = pair(near, far);
                let sent: Vec<u8> = (0..=250).cycle().take(pieces.iter().sum()).collect();
                let expected = sent.clone();
                let writing = async move {
                    let mut rest = sent.as_slice();
                    for piece in pieces {
                        let (now, later) = rest.split_at(piece);
                        near.write_all(now).await.unwrap();
                        near.flush().await.unwrap();
                        rest = later;
                    }
                    near.shutdown().await.unwrap();
                    near
                };
                let reading = async {
                    let (mut all, mut buffer) = (Vec::new(), vec![0; read_bytes]);
                    loop {
                        match far.read(&mut buffer).await.unwrap() {
                            0 => return all,
                            length => all.extend_from_slice(&buffer[..length]),
                        }
                    }
                };
                let (_near, received) = tokio::join!(writing, reading);
                assert!(received == expected);
            });
        }
    }

    /// Sends a text through a transport that can flip a bit of one byte.
    async fn carried(text: &[u8], flip: Option<usize>) -> (Vec<u8>, io::Result<Vec<u8>>) {
        let ((near, mut from_near), (mut to_far, far)) = (duplex(1000), duplex(1000));
        let (mut near, mut far) = pair(near, far);
        near.write_all(text).await.unwrap();
        near.shutdown().await.unwrap();
        let mut sealed = Vec::new();
        from_near.read_to_end(&mut sealed).await.unwrap();
        if let Some(at) = flip {
            sealed[at] ^= 1;
        }
        to_far.write_all(&sealed).await.unwrap();
        drop(to_far);
        let mut plain = Vec::new();
        let read = far.read_to_end(&mut plain).await.map(|_| plain);
        (sealed, read)
    }

    #[tokio::test]
    async fn an_intermediary_can_neither_read_nor_change_bytes() {
        let text = b"cookie: session=1"; // 17 bytes, and 16 of the seal
        let (sealed, read) = carried(text, None).await;
        assert_eq!(read.unwrap(), text);
        assert!(!sealed.windows(6).any(|bytes| bytes == b"cookie"));
        assert_eq!(sealed[..2], [0x82, 0x80 | 33], "it looks like a WebSocket message");
        for at in 0..sealed.len() {
            assert!(carried(text, Some(at)).await.1.is_err(), "byte {at}");
        }
    }

    #[tokio::test]
    async fn an_end_in_the_middle_of_a_record_is_an_error() {
        let (socket, mut carrier) = duplex(1000);
        let (_, mut far) = pair((), socket);
        carrier.write_all(&[0x82]).await.unwrap();
        drop(carrier);
        assert_eq!(far.read(&mut [0; 100]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_idle_channel_holds_no_buffer() {
        let (near, far) = duplex(100_000);
        let (mut near, mut far) = pair(near, far);
        near.write_all(&[7; 50_000]).await.unwrap();
        near.flush().await.unwrap();
        far.read_exact(&mut [0; 50_000]).await.unwrap();
        let nothing = tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut [0; 1])).await;
        assert!(nothing.is_err());
        assert_eq!((near.output.capacity(), far.input.capacity(), far.plain.capacity()), (0, 0, 0));
    }
}
