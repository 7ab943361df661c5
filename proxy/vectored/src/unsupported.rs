//! Replacement for systems without `io_uring`.

use std::convert::Infallible;
use std::io;
use std::os::fd::BorrowedFd;

/// Ring that can't be created on this system.
#[derive(Debug)]
pub struct NoRing(Infallible);

impl NoRing {
    /// Always fails, so that the caller sends to each socket separately.
    ///
    /// # Errors
    /// On every call.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Would send to each socket.
    pub fn send_many<'a, S>(&mut self, _sends: impl IntoIterator<Item = (BorrowedFd<'a>, S)>) -> NothingSent
    where
        S: IntoIterator<Item = &'a [u8]>,
    {
        match self.0 {}
    }
}

/// Results of a call that never happens.
pub type NothingSent = std::iter::Empty<io::Result<usize>>;
