//! TLS state without a socket: records in and out.
//!
//! Incoming data is decrypted in the thread's scratch buffer, and output accepted by the socket needs no buffer. With
//! rustls's own buffers, an idle client would use 4 KiB more.
//!
//! ```text
//!  socket ──► scratch ──records──► rustls ──► reader's buffer          scratch: one per thread
//!                └─ incomplete records are kept here           └─ decrypted data not taken is kept here
//!  socket ◄── scratch ◄──records── rustls ◄── writer's bytes
//!                └─ output not accepted is kept here
//! ```
//!
//! Reading and writing are closures that return `WouldBlock` if the socket has or accepts nothing.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    AppDataRecord, ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, InvalidMessage, ServerConfig};
use tokio::io::ReadBuf;

/// Bytes per read: one whole record of maximum size.
const READ_BYTES: usize = 16 * 1024 + 256 + 5;

/// Maximum bytes of a response encrypted per write, and so pending for the socket: four records.
pub(super) const WRITE_MAX_BYTES: usize = 64 * 1024;

/// Maximum bytes of an incomplete record or fragmented handshake message, the same as in rustls itself.
pub(super) const PARTIAL_MAX_BYTES: usize = 64 * 1024;

/// Minimum room for the next part of incomplete data.
pub(super) const PIECE_BYTES: usize = 512;

/// Maximum content of a record, in bytes.
pub(crate) const RECORD_BYTES: usize = 16 * 1024;

/// Room for header, sequence number, type and tag of a record.
const RECORD_OVERHEAD_BYTES: usize = 64;

thread_local! {
    /// Buffer for data read or written during one call.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Buffer for joining slices into one record.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// TLS state of the server's end.
pub(crate) struct Records {
    tls: UnbufferedServerConnection,
    /// Beginning of an incomplete record or fragmented handshake message.
    pub(super) partial: BytesMut,
    /// Decrypted bytes not yet taken.
    pub(super) received: BytesMut,
    /// Records not yet accepted by the socket.
    pub(super) outgoing: BytesMut,
    /// The peer has closed its direction.
    is_ended: bool,
    /// The close of this end is queued.
    is_closing: bool,
    /// The peer has violated the protocol.
    failure: Option<Error>,
}

impl Records {
    /// Creates the state before the handshake. Fails if rustls can't use the configuration.
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(broken)?;
        let (partial, received, outgoing) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        Ok(Self { tls, partial, received, outgoing, is_ended: false, is_closing: false, failure: None })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    pub(super) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether this end has closed its direction and writes no further data.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Takes pending decrypted bytes.
    pub(crate) fn take_received(&mut self, into: &mut ReadBuf<'_>) {
        if self.received.is_empty() {
            return;
        }
        let taken = self.received.split_to(self.received.len().min(into.remaining()));
        into.put_slice(&taken);
        drop(taken);
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    /// Calls `read` once and decrypts complete records. Returns the number of bytes read; 0 is the end of the socket.
    ///
    /// # Errors
    /// The error of `read`, or a protocol violation by the peer; an explaining alert is then pending.
    pub(crate) fn read_with(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        into: &mut ReadBuf<'_>,
    ) -> io::Result<usize> {
        let (count, decrypted) = if self.partial.is_empty() {
            SCRATCH.with_borrow_mut(|scratch| {
                let room = sized(scratch, READ_BYTES);
                let count = read(room)?;
                io::Result::Ok((count, self.decrypt(room.get_mut(..count).unwrap_or_default(), into)))
            })?
        } else {
            // Appends to earlier data, which then need not be moved. The buffer grows with received data, not announced
            // lengths.
            let begin = self.partial.len();
            self.partial.resize(begin + begin.clamp(PIECE_BYTES, READ_BYTES), 0);
            let count = read(self.partial.get_mut(begin..).unwrap_or_default());
            self.partial.truncate(begin + count.as_ref().map_or(0, |&count| count));
            (count?, self.decrypt_partial(into))
        };
        decrypted.map_err(broken)?;
        Ok(count)
    }

    /// Writes pending records.
    ///
    /// # Errors
    /// The error of `write`; unaccepted records stay pending.
    pub(crate) fn send_with(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match write(&self.outgoing)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => self.outgoing.advance(written),
            }
        }
        self.outgoing = BytesMut::new();
        Ok(())
    }

    /// Encrypts up to `most` bytes in as few records as possible and passes them to `write`; the rest stays pending.
    /// Returns the number of bytes encrypted.
    ///
    /// # Errors
    /// `WouldBlock` while records are pending, without encrypting; otherwise this end is closed or `write` failed.
    pub(crate) fn write_with(
        &mut self,
        slices: &[IoSlice<'_>],
        most: usize,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.send_with(&mut write)?;
        with_joined(slices, most, |bytes| {
            SCRATCH.with_borrow_mut(|scratch| {
                let room = sized(scratch, room_for(bytes.len()));
                let length = self.encrypt(bytes, room)?;
                let mut waiting = room.get(..length).unwrap_or_default();
                while !waiting.is_empty() {
                    match write(waiting) {
                        Ok(0) => return Err(ErrorKind::WriteZero.into()),
                        Ok(written) => waiting = waiting.get(written..).unwrap_or_default(),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                self.outgoing.extend_from_slice(waiting);
                Ok(bytes.len())
            })
        })
    }

    /// Appends up to `most` encrypted bytes to `sealed`, for the caller to write; returns the number of bytes
    /// encrypted. Fails like [`write_with`](Self::write_with).
    pub(crate) fn seal(&mut self, slices: &[IoSlice<'_>], most: usize, sealed: &mut Vec<u8>) -> io::Result<usize> {
        if self.has_unsent() {
            return Err(ErrorKind::WouldBlock.into());
        }
        with_joined(slices, most, |bytes| {
            let begin = sealed.len();
            sealed.resize(begin + room_for(bytes.len()), 0);
            let length = self.encrypt(bytes, sealed.get_mut(begin..).unwrap_or_default());
            sealed.truncate(begin + length.as_ref().map_or(0, |&length| length));
            length.map(|_| bytes.len())
        })
    }

    /// Keeps bytes that the caller of [`seal`](Self::seal) could not write.
    pub(crate) fn keep_unsent(&mut self, sealed: &[u8]) {
        self.outgoing.extend_from_slice(sealed);
    }

    /// Queues a close notification if the handshake is complete.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.is_closing, true) {
            return;
        }
        let mut room = [0; RECORD_OVERHEAD_BYTES];
        // Without the notification, the socket is closed anyway.
        if let Ok(Some(Ok(length))) = self.write(|open| open.queue_close_notify(&mut room)) {
            self.outgoing.extend_from_slice(room.get(..length).unwrap_or_default());
        }
    }

    /// Decrypts complete records. Data without room and incomplete records are kept.
    fn decrypt(&mut self, bytes: &mut [u8], into: &mut ReadBuf<'_>) -> Result<(), Error> {
        let (used, processed) = self.process(bytes, into, |_| ());
        // Allocates exactly, so that an idle client holds no spare memory.
        self.partial = BytesMut::from(bytes.get(used..).unwrap_or_default());
        processed.map(drop)
    }

    fn decrypt_partial(&mut self, into: &mut ReadBuf<'_>) -> Result<(), Error> {
        self.process_partial(into, |_| ())?;
        // rustls waits for complete messages without a limit of its own.
        if self.partial.len() > PARTIAL_MAX_BYTES {
            return Err(self.failure.insert(InvalidMessage::HandshakePayloadTooLarge.into()).clone());
        }
        Ok(())
    }

    /// Encrypts bytes into `room`. Returns the length of the records.
    fn encrypt(&mut self, bytes: &[u8], room: &mut [u8]) -> io::Result<usize> {
        if self.is_closing {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let encrypted = self.write(|open| match open.encrypt(bytes, room) {
            Ok(length) => Ok(length),
            Err(EncryptError::InsufficientSize(_)) => Err(io::Error::other("TLS records are larger than they can be")),
            Err(error @ EncryptError::EncryptExhausted) => Err(io::Error::other(error)),
        });
        encrypted?.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    /// Runs `act` with the writing direction; `None` if it is not open.
    fn write<T>(
        &mut self,
        act: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> T,
    ) -> io::Result<Option<T>> {
        self.process_partial(&mut ReadBuf::new(&mut []), act).map_err(broken)
    }

    /// Processes kept bytes, like [`process`](Self::process).
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

    /// Processes records, then runs `act` with the writing direction if it is open. Returns the number of bytes
    /// consumed.
    fn process<T>(
        &mut self,
        bytes: &mut [u8],
        into: &mut ReadBuf<'_>,
        act: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> T,
    ) -> (usize, Result<Option<T>, Error>) {
        let Self { tls, received, outgoing, is_ended, failure, .. } = self;
        let mut used = 0;
        // After a failure, only the explaining alert is written.
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

/// Calls `act` with up to `most` bytes of the slices joined, because each record has a header and a tag.
fn with_joined<T>(slices: &[IoSlice<'_>], most: usize, act: impl FnOnce(&[u8]) -> T) -> T {
    if let [only] = slices {
        return act(only.get(..most).unwrap_or(only));
    }
    JOINED.with_borrow_mut(|joined| {
        joined.clear();
        for slice in slices {
            let room = most - joined.len();
            joined.extend_from_slice(slice.get(..room).unwrap_or(slice));
        }
        act(joined)
    })
}

fn room_for(bytes: usize) -> usize {
    bytes + (bytes / RECORD_BYTES + 1) * RECORD_OVERHEAD_BYTES
}

/// Slice of this length from a growing buffer. Old contents remain in it.
fn sized(scratch: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if scratch.len() < length {
        scratch.resize(length, 0);
    }
    scratch.get_mut(..length).unwrap_or_default()
}

/// Queues TLS's own messages.
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
