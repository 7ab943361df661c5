//! Wire of a client connection: its socket, the frames that wait for it, and who writes them next.
//!
//! ```text
//!  idle ──deferred──► dirty ──end of the batch──► written whole ──► idle
//!                                                    └─ the socket takes no more ──► flushing ──task──► idle
//! ```

use std::io;
use std::mem;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::net::socket::Socket;
use crate::shard::delivery::outbox::{Dropped, Outbox};

/// Socket of a client connection with its outbox.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Wire {
    outbox: Outbox,
    /// Read by the connection's own task, written by each delivery.
    socket: Socket,
    /// Batch in which deferred frames were last written.
    written_in: u32,
    /// Deferred frames leave at the end of this batch.
    is_dirty: bool,
    /// A task waits until the socket takes more.
    is_flushing: bool,
    /// The client is one of the [slow clients](crate::shard::delivery::slow_client).
    is_slow: bool,
}

impl Wire {
    #[must_use]
    pub(crate) fn new(socket: Socket) -> Self {
        Self { outbox: Outbox::Empty, socket, written_in: 0, is_dirty: false, is_flushing: false, is_slow: false }
    }

    #[must_use]
    #[inline]
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    #[must_use]
    #[inline]
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether there is a socket, and thereby a task that serves it.
    #[must_use]
    pub(crate) fn has_socket(&self) -> bool {
        !matches!(self.socket, Socket::Away)
    }

    /// Bytes in the outbox.
    #[must_use]
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Whether a frame may be written immediately: no frame and no record of TLS waits before it.
    #[must_use]
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_flushing && self.outbox.is_empty()
    }

    /// Whether a task waits until the socket takes more.
    #[must_use]
    #[inline]
    pub(crate) fn is_flushing(&self) -> bool {
        self.is_flushing
    }

    /// Whether the client is one of the slow clients, for which each byte that it takes is noted.
    #[must_use]
    #[inline]
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow
    }

    pub(crate) fn set_slow(&mut self, is_slow: bool) {
        self.is_slow = is_slow;
    }

    /// Queues a frame that the client must get.
    #[inline]
    pub(crate) fn queue(&mut self, frame: Bytes) {
        self.outbox.push(frame);
    }

    /// Queues a frame that the client may miss.
    #[inline]
    pub(crate) fn queue_droppable(&mut self, frame: Bytes) {
        self.outbox.push_droppable(frame);
    }

    /// Drops this many bytes of droppable frames, the oldest first.
    pub(crate) fn drop_oldest(&mut self, bytes: usize) -> Dropped {
        self.outbox.drop_oldest(bytes)
    }

    /// Removes bytes that were written.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.outbox.advance(bytes);
    }

    /// Seals the outbox into TLS records, behind those that are there.
    ///
    /// # Errors
    /// When the socket seals nothing; the outbox is unchanged then.
    pub(crate) fn seal(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        let Self { outbox, socket, .. } = self;
        outbox.write_with(|slices| socket.seal(slices, records))
    }

    /// Leaves the frames for the end of the batch; returns the batch in which such frames were last written, unless
    /// some wait already.
    #[inline]
    pub(crate) fn defer(&mut self) -> Option<u32> {
        (!mem::replace(&mut self.is_dirty, true)).then_some(self.written_in)
    }

    /// Takes the deferred frames up for writing; `false` if there are none.
    #[inline]
    pub(crate) fn take_deferred(&mut self) -> bool {
        mem::take(&mut self.is_dirty) && !self.outbox.is_empty()
    }

    /// Notes the batch in which deferred frames are written.
    #[inline]
    pub(crate) fn note_batch(&mut self, batch: u32) {
        self.written_in = batch;
    }

    /// Writes as much as the socket takes now.
    ///
    /// # Errors
    /// `WouldBlock` when something still waits; else the socket failed.
    #[inline]
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        self.is_dirty = false;
        self.outbox.try_flush(&self.socket)
    }

    /// Leaves the rest to a task; `false` if one waits already.
    pub(crate) fn begin_flush(&mut self) -> bool {
        !mem::replace(&mut self.is_flushing, true)
    }

    /// Writes as the socket takes it, until nothing waits.
    ///
    /// # Errors
    /// When the socket failed.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_flush(cx, &self.socket)
    }

    /// Notes that the task has ended.
    pub(crate) fn end_flush(&mut self) {
        self.is_flushing = false;
    }

    pub(crate) fn discard(&mut self) {
        self.outbox = Outbox::Empty;
    }

    /// Takes the socket away, and the task that flushes with it.
    pub(crate) fn detach(&mut self) -> Socket {
        self.is_flushing = false;
        mem::replace(&mut self.socket, Socket::Away)
    }

    /// Gives the connection another socket.
    pub(crate) fn attach(&mut self, socket: Socket) {
        self.socket = socket;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        Wire::new(Socket::boxed(tokio::io::empty()))
    }

    #[test]
    fn deferred_frames_are_noted_once_in_a_batch_and_taken_once() {
        let mut wire = wire();
        wire.note_batch(3);
        wire.queue(Bytes::from_static(b"one"));
        assert_eq!((wire.defer(), wire.defer()), (Some(3), None));
        assert!(wire.take_deferred() && !wire.take_deferred());
        assert!(!wire.is_idle() && wire.bytes() == 3);
    }

    #[test]
    fn one_task_flushes_until_the_socket_is_gone() {
        let mut wire = wire();
        assert!(wire.begin_flush() && !wire.begin_flush());
        assert!(!wire.is_idle(), "records may wait below the outbox");
        drop(wire.detach());
        assert!(wire.is_idle() && !wire.has_socket() && wire.begin_flush());
    }
}
