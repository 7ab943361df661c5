//! State of TLS without its socket: records in and out.
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
//!
//! Reading and writing are closures that say `WouldBlock` where the socket has nothing, or takes nothing.

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

/// Bytes that are read at once: a whole record of the largest size.
const READ_BYTES: usize = 16 * 1024 + 256 + 5;

/// Bytes of an answer that are encrypted at once, and so may wait for the socket: four records. More is taken when they
/// are gone.
pub(super) const WRITE_MAX_BYTES: usize = 64 * 1024;

/// Bytes that may wait for the rest of a record, or of a message of the handshake in several: what rustls itself grants
/// where it keeps them.
pub(super) const PARTIAL_MAX_BYTES: usize = 64 * 1024;

/// Room at least for the next piece of what is not whole.
pub(super) const PIECE_BYTES: usize = 512;

/// Content of a record at most.
pub(crate) const RECORD_BYTES: usize = 16 * 1024;

/// Room for the header, number, type and tag of a record.
const RECORD_OVERHEAD_BYTES: usize = 64;

thread_local! {
    /// Bytes that were read, or are to be written, while a call lasts.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Slices that become one record.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// State of the server's end of TLS.
pub(crate) struct Records {
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a message in several, whose rest has not come.
    pub(super) partial: BytesMut,
    /// Decrypted bytes that nobody has taken.
    pub(super) received: BytesMut,
    /// Records that the socket has not taken.
    pub(super) outgoing: BytesMut,
    /// The peer has said that nothing follows.
    is_ended: bool,
    /// The close of this end is queued.
    is_closing: bool,
    /// The peer has broken the protocol.
    failure: Option<Error>,
}

impl Records {
    /// State before the handshake.
    ///
    /// # Errors
    /// When rustls can't use the configuration.
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(broken)?;
        let (partial, received, outgoing) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        Ok(Self { tls, partial, received, outgoing, is_ended: false, is_closing: false, failure: None })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The protocol that client and server have agreed on.
    pub(super) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// Whether the peer has said that nothing follows.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether this end has said so, and writes nothing any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether records wait for the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Takes decrypted bytes that wait.
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

    /// Reads once by `read`, and decrypts the records that are whole. Returns the number of bytes read; 0 is the end of
    /// the socket.
    ///
    /// # Errors
    /// That of `read`; or the peer has broken the protocol, and the alert that says how waits for the socket.
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
            // Behind what has come, which is not moved for each piece. It grows with what comes, whatever was
            // announced.
            let begin = self.partial.len();
            self.partial.resize(begin + begin.clamp(PIECE_BYTES, READ_BYTES), 0);
            let count = read(self.partial.get_mut(begin..).unwrap_or_default());
            self.partial.truncate(begin + count.as_ref().map_or(0, |&count| count));
            (count?, self.decrypt_partial(into))
        };
        decrypted.map_err(broken)?;
        Ok(count)
    }

    /// Writes records that wait.
    ///
    /// # Errors
    /// That of `write`: what it has not taken goes on waiting.
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

    /// Encrypts so many bytes at most, in as few records as there can be, and writes by `write` as much as it takes;
    /// the rest waits. Returns how many bytes were encrypted.
    ///
    /// # Errors
    /// `WouldBlock` when others wait, and so nothing was encrypted; else this end has said that nothing follows, or
    /// `write` has failed.
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

    /// Encrypts so many bytes at most behind those in `sealed`, for a caller who writes them. Returns how many bytes
    /// were encrypted.
    ///
    /// # Errors
    /// As of [`write_with`](Self::write_with).
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

    /// Keeps what the caller of [`seal`](Self::seal) could not write.
    pub(crate) fn keep_unsent(&mut self, sealed: &[u8]) {
        self.outgoing.extend_from_slice(sealed);
    }

    /// Queues the word that nothing follows, where the handshake is over.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.is_closing, true) {
            return;
        }
        let mut room = [0; RECORD_OVERHEAD_BYTES];
        // Without the word the socket ends all the same.
        if let Ok(Some(Ok(length))) = self.write(|open| open.queue_close_notify(&mut room)) {
            self.outgoing.extend_from_slice(room.get(..length).unwrap_or_default());
        }
    }

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

/// Does something with slices as one, so many bytes of them at most: each record has a header and a tag.
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

/// Room that the records of so many bytes need.
fn room_for(bytes: usize) -> usize {
    bytes + (bytes / RECORD_BYTES + 1) * RECORD_OVERHEAD_BYTES
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
