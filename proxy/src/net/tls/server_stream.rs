//! TLS of one client: records in and out, over any byte stream.
//!
//! rustls reads from, and writes to, buffers that belong to this file, so that a client that is idle owns none: what a
//! read brings is decrypted where the thread keeps it, and what the socket takes at once was never anybody else's. With
//! the buffers that rustls keeps by itself an idle client costs 4 KiB more.
//!
//! ```text
//!  socket ──► scratch ──records──► rustls ──► reader's buffer          scratch: one for each thread
//!                └─ a record that is not whole waits here      └─ what it does not take waits here
//!  socket ◄── scratch ◄──records── rustls ◄── writer's bytes
//!                └─ what the socket does not take waits here
//! ```

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    AppDataRecord, ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, InvalidMessage, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes that are read at once: a whole record of the largest size.
const READ_BYTES: usize = 16 * 1024 + 256 + 5;

/// Bytes that are encrypted at once, and so may wait for the socket: four records. More is taken when they are gone.
const WRITE_MAX_BYTES: usize = 64 * 1024;

/// Bytes that may wait for the rest of a record, or of a message of the handshake in several: what rustls itself grants
/// where it keeps them.
const PARTIAL_MAX_BYTES: usize = 64 * 1024;

/// Room at least for the next piece of what is not whole.
const PIECE_BYTES: usize = 512;

/// Content of a record at most.
const RECORD_BYTES: usize = 16 * 1024;

/// Room for the header, number, type and tag of a record.
const RECORD_OVERHEAD_BYTES: usize = 64;

thread_local! {
    /// Bytes that were read, or are to be written, while a call lasts.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The server's end of TLS.
pub(crate) struct TlsStream<S> {
    socket: S,
    records: Records,
    /// The close of this end is queued.
    is_closing: bool,
}

/// State of TLS without the socket.
struct Records {
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a message in several, whose rest has not come.
    partial: BytesMut,
    /// Decrypted bytes that nobody has taken.
    received: BytesMut,
    /// Records that the socket has not taken.
    outgoing: BytesMut,
    /// The peer has said that nothing follows.
    is_ended: bool,
    /// The peer has broken the protocol.
    failure: Option<Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Shakes hands with a client.
    ///
    /// # Errors
    /// When the socket fails, or the client breaks the protocol; the source of the error is then one of rustls.
    pub(crate) async fn accept(config: Arc<ServerConfig>, socket: S) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(broken)?;
        let (partial, received, outgoing) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        let records = Records { tls, partial, received, outgoing, is_ended: false, failure: None };
        let mut stream = Self { socket, records, is_closing: false };
        poll_fn(|cx| stream.poll_shake(cx)).await?;
        Ok(stream)
    }

    /// The stream that carries the records.
    pub(crate) fn get_ref(&self) -> &S {
        &self.socket
    }

    /// The protocol that client and server have agreed on.
    pub(crate) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.records.tls.alpn_protocol()
    }

    fn poll_shake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.records.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill(cx, &mut ReadBuf::new(&mut [])))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once, and decrypts the records that are whole. Returns the number of bytes read; 0 is the end of the
    /// socket.
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let Self { socket, records, .. } = self;
        let (read, decrypted) = if records.partial.is_empty() {
            ready!(SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(sized(scratch, READ_BYTES));
                ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
                Poll::Ready(io::Result::Ok((buffer.filled().len(), records.decrypt(buffer.filled_mut(), into))))
            }))?
        } else {
            // Behind what has come, which is not moved for each piece. It grows with what comes, whatever was
            // announced.
            let partial = &mut records.partial;
            partial.reserve(partial.len().clamp(PIECE_BYTES, READ_BYTES));
            let read = ready!(poll_read_buf(Pin::new(&mut *socket), cx, partial))?;
            (read, records.decrypt_partial(into))
        };
        if let Err(error) = decrypted {
            // The alert that says why, as far as the socket takes it now.
            drop(self.poll_send(&mut Context::from_waker(Waker::noop())));
            return Poll::Ready(Err(broken(error)));
        }
        Poll::Ready(Ok(read))
    }

    /// Encrypts bytes, and writes what the socket takes of them.
    fn poll_encrypted(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_send(cx))?;
        let bytes = bytes.get(..WRITE_MAX_BYTES).unwrap_or(bytes);
        let Self { socket, records, .. } = self;
        SCRATCH.with_borrow_mut(|scratch| {
            let records_max = bytes.len() / RECORD_BYTES + 1;
            let room = sized(scratch, bytes.len() + records_max * RECORD_OVERHEAD_BYTES);
            let length = records.encrypt(bytes, room)?;
            let mut waiting = room.get(..length).unwrap_or_default();
            while !waiting.is_empty() && records.outgoing.is_empty() {
                match Pin::new(&mut *socket).poll_write(cx, waiting)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(written) => waiting = waiting.get(written..).unwrap_or_default(),
                    Poll::Pending => break,
                }
            }
            records.outgoing.extend_from_slice(waiting);
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// Writes what waits for the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, records: Records { outgoing, .. }, .. } = self;
        while !outgoing.is_empty() {
            match ready!(Pin::new(&mut *socket).poll_write(cx, outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => outgoing.advance(written),
            }
        }
        *outgoing = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl Records {
    /// Decrypts the records that are whole; what there is no room for waits, and so does the rest.
    fn decrypt(&mut self, bytes: &mut [u8], into: &mut ReadBuf<'_>) -> Result<(), Error> {
        let (used, processed) = self.process(bytes, into, |_| ());
        // An idle client keeps no memory for what may come.
        self.partial = BytesMut::from(bytes.get(used..).unwrap_or_default());
        processed.map(drop)
    }

    /// Decrypts what has become whole of the bytes that wait.
    fn decrypt_partial(&mut self, into: &mut ReadBuf<'_>) -> Result<(), Error> {
        self.process_partial(into, |_| ())?;
        // rustls asks for more until a message is whole, and leaves it to us how long that may go on.
        if self.partial.len() > PARTIAL_MAX_BYTES {
            return Err(self.failure.insert(InvalidMessage::HandshakePayloadTooLarge.into()).clone());
        }
        Ok(())
    }

    /// Encrypts bytes into `room`. Returns the length of the records.
    fn encrypt(&mut self, bytes: &[u8], room: &mut [u8]) -> io::Result<usize> {
        let encrypted = self.write(|open| match open.encrypt(bytes, room) {
            Ok(length) => Ok(length),
            Err(EncryptError::InsufficientSize(_)) => Err(io::Error::other("TLS records are larger than they can be")),
            Err(error @ EncryptError::EncryptExhausted) => Err(io::Error::other(error)),
        });
        encrypted?.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    /// Queues the word that nothing follows, where the handshake is over.
    fn close(&mut self) {
        let mut room = [0; RECORD_OVERHEAD_BYTES];
        // Without the word the socket ends all the same.
        if let Ok(Some(Ok(length))) = self.write(|open| open.queue_close_notify(&mut room)) {
            self.outgoing.extend_from_slice(room.get(..length).unwrap_or_default());
        }
    }

    /// Does something with the writing direction; `None` while it is not open.
    fn write<T>(
        &mut self,
        act: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> T,
    ) -> io::Result<Option<T>> {
        self.process_partial(&mut ReadBuf::new(&mut []), act).map_err(broken)
    }

    /// Processes the bytes that wait, as [`process`](Self::process) does.
    fn process_partial<T>(
        &mut self,
        into: &mut ReadBuf<'_>,
        act: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> T,
    ) -> Result<Option<T>, Error> {
        let mut partial = std::mem::take(&mut self.partial);
        let (used, processed) = self.process(&mut partial, into, act);
        partial.advance(used);
        if !partial.is_empty() {
            self.partial = partial;
        }
        processed
    }

    /// Processes records, and then does something with the writing direction, if that is open. Returns how many bytes
    /// are done with.
    fn process<T>(
        &mut self,
        bytes: &mut [u8],
        into: &mut ReadBuf<'_>,
        act: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> T,
    ) -> (usize, Result<Option<T>, Error>) {
        let Self { tls, received, outgoing, is_ended, failure, .. } = self;
        let mut used = 0;
        // What follows a failure is the alert that tells of it, and nothing else.
        while failure.is_none() || tls.wants_write() {
            let UnbufferedStatus { discard, state } =
                tls.process_tls_records(bytes.get_mut(used..).unwrap_or_default());
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, outgoing),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(AppDataRecord { payload, .. })) = traffic.next_record() {
                        let fits = if received.is_empty() { into.remaining().min(payload.len()) } else { 0 };
                        let (now, later) = payload.split_at(fits);
                        into.put_slice(now);
                        received.extend_from_slice(later);
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => *is_ended = true,
                Ok(ConnectionState::WriteTraffic(mut open)) => return (used + discard, Ok(Some(act(&mut open)))),
                Ok(_) => return (used + discard, Ok(None)),
                Err(error) => *failure = Some(error),
            }
            used += discard;
        }
        (used, failure.clone().map_or(Ok(None), Err))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = buffer.filled().len();
        loop {
            let received = &mut stream.records.received;
            if !received.is_empty() {
                let taken = received.split_to(received.len().min(buffer.remaining()));
                buffer.put_slice(&taken);
                drop(taken);
                if received.is_empty() {
                    *received = BytesMut::new();
                }
            }
            if buffer.filled().len() > before || buffer.remaining() == 0 || stream.records.is_ended {
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
        self.get_mut().poll_encrypted(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        match slices {
            [only] => stream.poll_encrypted(cx, only),
            // In one record: each has a header and a tag of its own.
            several => {
                ready!(stream.poll_send(cx))?;
                let mut joined = BytesMut::new();
                for slice in several {
                    let room = WRITE_MAX_BYTES - joined.len();
                    joined.extend_from_slice(slice.get(..room).unwrap_or(slice));
                }
                stream.poll_encrypted(cx, &joined)
            }
        }
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
        if !std::mem::replace(&mut stream.is_closing, true) {
            stream.records.close();
        }
        ready!(stream.poll_send(cx))?;
        Pin::new(&mut stream.socket).poll_shutdown(cx)
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .field("is_closing", &self.is_closing)
            .finish_non_exhaustive()
    }
}

/// A buffer of this length at least, cut to it. What was there before stays in it.
fn sized(scratch: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if scratch.len() < length {
        scratch.resize(length, 0);
    }
    scratch.get_mut(..length).unwrap_or_default()
}

/// Queues what TLS says by itself.
fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut BytesMut) {
    if let Err(EncodeError::InsufficientSize(room)) = data.encode(&mut []) {
        let begin = outgoing.len();
        outgoing.resize(begin + room.required_size, 0);
        let encoded = data.encode(outgoing.get_mut(begin..).unwrap_or_default()).unwrap_or(0);
        outgoing.truncate(begin + encoded);
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as ClientStream;

    use super::super::provider;
    use super::*;

    const HOST: &str = "chat.example";
    const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

    fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let identity = generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let (certificate, key) = (CertificateDer::from(identity.cert), PrivateKeyDer::from(identity.signing_key));
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let mut server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        server.alpn_protocols = vec![b"http/1.1".into()];
        let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
        (server.into(), client.into())
    }

    /// Pipe that reads and writes so many bytes at once.
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

    /// Client and server that have shaken hands; the server reads and writes so many bytes at once.
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
        // Record by record one byte of a ClientHello that is to have 65 535, with and without others on the way.
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
    async fn what_is_not_whole_takes_the_memory_of_what_has_come() {
        let (mut client, mut server) = ends(&version::TLS13, 4096).await;
        // The head of a record of 16 KiB, and a few bytes of it.
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
