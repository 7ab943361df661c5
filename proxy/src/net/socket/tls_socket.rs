//! Client socket of TLS over TCP: records go to the system directly, as frames of a plain client do.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::drained::read_now;
use crate::net::tls::{RECORD_BYTES, Records};

/// TLS over TCP. All methods take `&self`, because a shard is one thread.
pub(crate) struct TlsSocket {
    stream: TcpStream,
    records: RefCell<Records>,
}

impl TlsSocket {
    /// Goes on where a handshake, and a request, have ended.
    #[must_use]
    pub(crate) fn new(stream: TcpStream, records: Records) -> Self {
        Self { stream, records: RefCell::new(records) }
    }

    /// Reads into `buffer` when there is something to read; 0 is the end. Cancel-safe.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer);
        loop {
            let mut records = self.records.borrow_mut();
            records.take_received(&mut into);
            let count = into.filled().len();
            // Nobody reads on after a cut.
            if count > 0 || records.is_ended() || records.is_closing() {
                return Poll::Ready(Ok(count));
            }
            ready!(self.stream.poll_read_ready(cx))?;
            match records.read_with(|room| read_now(&self.stream, room), &mut into) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    // The alert that says why, as far as the socket takes it now.
                    let _ = records.send_with(|bytes| self.send(bytes));
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Encrypts bytes, and writes what the socket takes right now; the rest waits, up to a record. Returns how many
    /// were encrypted.
    ///
    /// # Errors
    /// `WouldBlock` when records wait already; else the socket failed.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.records.borrow_mut().write_with(slices, RECORD_BYTES, |bytes| self.send(bytes))
    }

    /// Encrypts bytes when none wait.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut records = self.records.borrow_mut();
        self.poll_with(cx, || records.write_with(slices, RECORD_BYTES, |bytes| self.stream.try_write(bytes)))
    }

    /// Writes records that wait.
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

    /// Descriptor that takes records.
    #[must_use]
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Encrypts bytes behind those in `sealed`, for a caller who writes them to the descriptor. Returns how many were
    /// encrypted.
    ///
    /// # Errors
    /// `WouldBlock` when records wait already; or the socket was cut.
    pub(super) fn seal(&self, slices: &[IoSlice<'_>], sealed: &mut Vec<u8>) -> io::Result<usize> {
        self.records.borrow_mut().seal(slices, RECORD_BYTES, sealed)
    }

    /// Keeps what the caller of [`seal`](Self::seal) could not write.
    pub(super) fn keep_unsent(&self, sealed: &[u8]) {
        self.records.borrow_mut().keep_unsent(sealed);
    }

    /// Shuts both directions down, with the end of TLS if there is room for it: the reading task sees the end.
    pub(super) fn cut(&self) {
        self.say_end();
        // It fails only where the peer was faster, and then the reader sees the end too.
        drop(SockRef::from(&self.stream).shutdown(Shutdown::Both));
    }

    fn say_end(&self) {
        let mut records = self.records.borrow_mut();
        records.close();
        // A peer that reads no more has to do without.
        let _ = records.send_with(|bytes| self.send(bytes));
    }

    /// Writes past the readiness that the runtime keeps: the system knows best.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(&self.stream).send(bytes)
    }

    /// Tries until the socket takes something.
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
    /// Sends the end of TLS, so that the peer knows that nothing was cut off.
    fn drop(&mut self) {
        self.say_end();
    }
}
