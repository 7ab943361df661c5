//! Client socket with TLS over TCP. Records are written directly, like frames of a plain client.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::boxed_socket::read_now;
use crate::ground::net::tls::{RECORD_BYTES, Records};

/// TLS over TCP. All methods take `&self`, because a shard is one thread.
pub(crate) struct TlsSocket {
    stream: TcpStream,
    records: RefCell<Records>,
}

impl TlsSocket {
    /// Continues after a handshake and a request.
    pub(crate) fn new(stream: TcpStream, records: Records) -> Self {
        Self { stream, records: RefCell::new(records) }
    }

    /// Reads available data into `buffer`; 0 is the end. Cancel-safe.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer);
        loop {
            let mut records = self.records.borrow_mut();
            records.take_received(&mut into);
            let count = into.filled().len();
            // After a cut, the data has no reader.
            if count > 0 || records.is_ended() || records.is_closing() {
                return Poll::Ready(Ok(count));
            }
            ready!(self.stream.poll_read_ready(cx))?;
            match records.read_with(|room| read_now(&self.stream, room), &mut into) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    // Sends as much of the explaining alert as possible.
                    let _ = records.send_with(|bytes| self.send(bytes));
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Encrypts bytes and writes them without blocking; up to one record is kept. Returns the number of bytes
    /// encrypted.
    ///
    /// # Errors
    /// `WouldBlock` while earlier records are pending; otherwise the socket failed.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.records.borrow_mut().write_with(slices, RECORD_BYTES, |bytes| self.send(bytes))
    }

    /// Encrypts bytes once no record is pending.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut records = self.records.borrow_mut();
        self.poll_with(cx, || records.write_with(slices, RECORD_BYTES, |bytes| self.stream.try_write(bytes)))
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut records = self.records.borrow_mut();
        if !records.has_unsent() {
            return Poll::Ready(Ok(()));
        }
        self.poll_with(cx, || records.send_with(|bytes| self.stream.try_write(bytes)))
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.records.borrow().has_unsent()
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Appends records to `sealed`, for the caller to write to the descriptor, and returns the number of bytes
    /// encrypted.
    ///
    /// # Errors
    /// `WouldBlock` while earlier records are pending; otherwise the socket was cut.
    pub(super) fn seal(&self, slices: &[IoSlice<'_>], sealed: &mut Vec<u8>) -> io::Result<usize> {
        self.records.borrow_mut().seal(slices, RECORD_BYTES, sealed)
    }

    pub(super) fn keep_unsent(&self, sealed: &[u8]) {
        self.records.borrow_mut().keep_unsent(sealed);
    }

    /// Shuts down both directions, with a TLS close if there is room; the reading task sees the end.
    pub(super) fn cut(&self) {
        self.send_close_notify();
        // Fails only if the peer has already closed; the reader sees that, too.
        drop(SockRef::from(&self.stream).shutdown(Shutdown::Both));
    }

    fn send_close_notify(&self) {
        let mut records = self.records.borrow_mut();
        records.close();
        // Best effort: a peer that has stopped reading does not get the close.
        let _ = records.send_with(|bytes| self.send(bytes));
    }

    /// Writes directly, without the runtime's cached readiness.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(&self.stream).send(bytes)
    }

    /// Retries until the socket accepts data.
    fn poll_with<T>(&self, cx: &mut Context<'_>, mut act: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match act() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Drop for TlsSocket {
    /// Closes TLS cleanly, so that the peer can rule out truncation.
    fn drop(&mut self) {
        self.send_close_notify();
    }
}
