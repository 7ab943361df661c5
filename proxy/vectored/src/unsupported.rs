//! Other systems than Linux have no such call.

use std::convert::Infallible;
use std::io;
use std::os::fd::BorrowedFd;

/// Ring that can't be made on this system.
#[derive(Debug)]
pub struct NoRing(Infallible);

impl NoRing {
    /// Fails: the caller sends to each socket by itself.
    ///
    /// # Errors
    /// Always.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends to each socket.
    pub fn send_many<'a, S>(&mut self, _sends: impl IntoIterator<Item = (BorrowedFd<'a>, S)>) -> NothingSent
    where
        S: IntoIterator<Item = &'a [u8]>,
    {
        match self.0 {}
    }
}

/// Results of no call.
pub type NothingSent = std::iter::Empty<io::Result<usize>>;
