//! TLS of one client while it uses HTTP: records over any byte stream.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::records::{Records, WRITE_MAX_BYTES};

pub(crate) struct TlsStream<S> {
    socket: S,
    records: Records,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Performs the handshake with a client. Fails if the socket fails or the client violates the protocol; the latter
    /// has a rustls error as its source.
    pub(crate) async fn accept(config: Arc<ServerConfig>, socket: S) -> io::Result<Self> {
        let mut stream = Self { socket, records: Records::new(config)? };
        poll_fn(|cx| stream.poll_shake(cx)).await?;
        Ok(stream)
    }

    pub(crate) fn into_parts(self) -> (S, Records) {
        (self.socket, self.records)
    }

    pub(crate) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.records.alpn_protocol()
    }

    fn poll_shake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.records.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill(cx, &mut ReadBuf::new(&mut [])))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once and decrypts complete records. Returns the number of bytes read; 0 is the end of the socket.
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let Self { socket, records } = self;
        let read = records.read_with(
            |room| {
                let mut room = ReadBuf::new(room);
                at_once(Pin::new(socket).poll_read(cx, &mut room))?;
                Ok(room.filled().len())
            },
            into,
        );
        if read.is_err() && self.records.has_unsent() {
            // Sends as much of the explaining alert as possible.
            drop(self.poll_send(&mut Context::from_waker(Waker::noop())));
        }
        in_time(read)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, records } = self;
        in_time(records.send_with(|bytes| at_once(Pin::new(&mut *socket).poll_write(cx, bytes))))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = buffer.filled().len();
        loop {
            stream.records.take_received(buffer);
            if buffer.filled().len() > before || buffer.remaining() == 0 || stream.records.is_ended() {
                return Poll::Ready(Ok(()));
            }
            if ready!(stream.poll_fill(cx, buffer))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, records } = self.get_mut();
        let write = |bytes: &[u8]| at_once(Pin::new(&mut *socket).poll_write(cx, bytes));
        in_time(records.write_with(slices, WRITE_MAX_BYTES, write))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.poll_send(cx))?;
        Pin::new(&mut stream.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        stream.records.close();
        ready!(stream.poll_send(cx))?;
        Pin::new(&mut stream.socket).poll_shutdown(cx)
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Converts `Pending` to `WouldBlock`; the waker stays registered.
fn at_once<T>(result: Poll<io::Result<T>>) -> io::Result<T> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Converts `WouldBlock` to `Pending`.
fn in_time<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rustls::pki_types::ServerName;
    use rustls::{Error, InvalidMessage, SupportedProtocolVersion, version};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as ClientStream;

    use super::super::made_identity::{HOST, configs};
    use super::super::records::{PARTIAL_MAX_BYTES, PIECE_BYTES};
    use super::*;

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

    /// Pipe that reads and writes at most this many bytes per call.
    struct Cut(DuplexStream, usize);

    impl AsyncRead for Cut {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let most = self.1.min(buffer.remaining());
            let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(most));
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut piece))?;
            let read = piece.filled().len();
            buffer.advance(read);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Cut {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let most = self.1.min(bytes.len());
            Pin::new(&mut self.0).poll_write(cx, &bytes[..most])
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// Client and server after the handshake; the server reads and writes at most this many bytes per call.
    async fn ends(
        version: &'static SupportedProtocolVersion,
        bytes: usize,
    ) -> (ClientStream<DuplexStream>, TlsStream<Cut>) {
        let (server, client) = configs(version);
        let (near, far) = duplex(4096);
        let connecting = TlsConnector::from(client).connect(ServerName::try_from(HOST).unwrap(), far);
        let (client, server) = tokio::join!(connecting, TlsStream::accept(server, Cut(near, bytes)));
        (client.unwrap(), server.unwrap())
    }

    fn assert_owns_nothing<S>(server: &TlsStream<S>) {
        let Records { partial, received, outgoing, .. } = &server.records;
        assert_eq!([partial, received, outgoing].map(BytesMut::capacity), [0; 3]);
    }

    #[tokio::test]
    async fn bytes_go_both_ways_however_they_are_cut() {
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for (version, cut) in VERSIONS.into_iter().flat_map(|version| [7, 1000, 1 << 20].map(|cut| (version, cut))) {
            let (client, mut server) = ends(version, cut).await;
            assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
            let (mut from_server, mut to_server) = tokio::io::split(client);
            let (written, echoed, read) = tokio::join!(
                async {
                    to_server.write_all(&sent).await?;
                    to_server.shutdown().await
                },
                async {
                    let mut got = Vec::new();
                    server.read_to_end(&mut got).await?;
                    server.write_all(&got).await?;
                    server.shutdown().await
                },
                async {
                    let mut got = Vec::new();
                    from_server.read_to_end(&mut got).await.map(|_| got)
                },
            );
            written.unwrap();
            echoed.unwrap();
            assert!(read.unwrap() == sent, "{version:?} in pieces of {cut} bytes");
            assert_owns_nothing(&server);
        }
    }

    #[tokio::test]
    async fn several_slices_are_one_record() {
        let (mut client, mut server) = ends(&version::TLS13, 4096).await;
        let slices = [&b"one "[..], b"", b"two"].map(IoSlice::new);
        assert_eq!(server.write_vectored(&slices).await.unwrap(), 7);
        let mut got = [0; 64];
        assert_eq!(client.read(&mut got).await.unwrap(), 7, "a record is read at once");
        assert_eq!(&got[..7], b"one two");
    }

    #[tokio::test]
    async fn a_short_read_leaves_the_rest_and_an_idle_stream_owns_no_buffer() {
        for version in VERSIONS {
            let (mut client, mut server) = ends(version, 4096).await;
            assert_owns_nothing(&server);
            client.write_all(b"a word").await.unwrap();
            client.flush().await.unwrap();
            let mut got = [0; 2];
            server.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"a ");
            assert_eq!(&server.records.received[..], b"word");
            server.read_exact(&mut [0; 4]).await.unwrap();
            assert_owns_nothing(&server);
        }
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_waits_within_a_bound() {
        let (mut client, mut server) = ends(&version::TLS13, 4096).await;
        let mut written = 0;
        let piece = [7; 100_000];
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(taken) = Pin::new(&mut server).poll_write(cx, &piece) {
            written += taken.unwrap();
        }
        assert_eq!(written, WRITE_MAX_BYTES);
        let (flushed, read) = tokio::join!(server.flush(), async {
            let mut got = vec![0; written];
            client.read_exact(&mut got).await.map(|_| got)
        });
        flushed.unwrap();
        assert!(read.unwrap().iter().all(|&byte| byte == 7));
        assert_owns_nothing(&server);
    }

    #[tokio::test]
    async fn keys_may_change_on_the_way() {
        let (mut client, mut server) = ends(&version::TLS13, 4096).await;
        for n in 0..3 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(&[n]).await.unwrap();
            client.flush().await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), n);
            server.write_all(&[n]).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), n);
        }
    }

    #[tokio::test]
    async fn an_end_without_the_word_for_it_is_an_error() {
        let (client, mut server) = ends(&version::TLS13, 4096).await;
        drop(client.into_inner());
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (mut client, mut server) = ends(&version::TLS13, 4096).await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        server.write_all(b"still").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(server.write(b"late").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "still");
    }

    #[tokio::test]
    async fn a_message_that_never_becomes_whole_is_kept_up_to_a_limit() {
        // Sends a ClientHello of 65 535 bytes with one byte per record, with and without other data in between.
        let record = |byte: u8| [22, 3, 1, 0, 1, byte];
        let head = [1, 0, 255, 255].map(record).concat();
        for pieces in [1, 500] {
            let (server, _) = configs(&version::TLS13);
            let (near, mut far) = duplex(4096);
            let (accepted, sent) = tokio::join!(TlsStream::accept(server, near), async {
                let mut sent = head.len();
                far.write_all(&head).await.unwrap();
                while far.write_all(&record(0).repeat(pieces)).await.is_ok() {
                    sent += 6 * pieces;
                }
                sent
            });
            let error = accepted.err().unwrap();
            let cause = error.get_ref().unwrap().downcast_ref();
            assert_eq!(cause, Some(&Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)));
            assert!((PARTIAL_MAX_BYTES..PARTIAL_MAX_BYTES + 20_000).contains(&sent), "{sent}");
        }
    }

    #[tokio::test]
    async fn incomplete_data_uses_memory_only_for_received_bytes() {
        let (mut client, mut server) = ends(&version::TLS13, 4096).await;
        // Head of a 16 KiB record, and a few of its bytes.
        for bytes in [&[23, 3, 3, 64, 17][..], &[0; 20], &[0; 20]] {
            client.get_mut().0.write_all(bytes).await.unwrap();
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut server).poll_read(cx, &mut ReadBuf::new(&mut [0; 9])).is_pending());
        }
        let partial = &server.records.partial;
        assert!(partial.len() == 45 && partial.capacity() <= 4 * PIECE_BYTES, "{}", partial.capacity());
    }

    #[tokio::test]
    async fn nonsense_is_answered_with_an_alert() {
        let (server, _) = configs(&version::TLS13);
        let (near, mut far) = duplex(4096);
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = TlsStream::accept(server, near).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.get_ref().unwrap().is::<Error>(), "{error}");
        let mut alert = Vec::new();
        far.read_to_end(&mut alert).await.unwrap();
        assert_eq!(alert.first(), Some(&21), "{alert:?}");

        let (mut client, mut server) = ends(&version::TLS13, 4096).await;
        let broken = [23, 3, 3, 0, 20];
        client.get_mut().0.write_all(&[&broken[..], &[9; 20]].concat()).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(client.read_u8().await.is_err(), "it was told so");
    }
}
