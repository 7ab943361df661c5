//! Wire of a client connection: its socket, queued frames, and the state of writing.
//!
//! ```text
//!  idle ──deferred──► dirty ──end of the batch──► all written ──► idle
//!                                                    └─ socket full ──► flushing ──task──► idle
//! ```

use std::task::{Context, Poll};
use std::{io, mem};

use bytes::Bytes;

use crate::engine::shard::delivery::outbox::{Dropped, Need, Outbox};
use crate::ground::net::socket::Socket;

#[derive(Debug)]
#[repr(C)]
pub(crate) struct Wire {
    outbox: Outbox,
    /// Read by the connection's own task, written by deliveries.
    socket: Socket,
    /// Batch of the last write of deferred frames.
    written_in: u32,
    /// Deferred frames are written at the end of this batch.
    is_dirty: bool,
    /// A task waits for a writable socket.
    is_flushing: bool,
    /// Set for [slow clients](crate::engine::shard::delivery::slow_client).
    is_slow: bool,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { outbox: Outbox::Empty, socket, written_in: 0, is_dirty: false, is_flushing: false, is_slow: false }
    }

    #[inline]
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    #[inline]
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether there is a socket and so a task that serves it.
    pub(crate) fn has_socket(&self) -> bool {
        !matches!(self.socket, Socket::Away)
    }

    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Whether a frame may be written immediately, without queued frames or TLS records ahead of it.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_flushing && self.outbox.is_empty()
    }

    #[inline]
    pub(crate) fn is_flushing(&self) -> bool {
        self.is_flushing
    }

    /// Whether the client is slow, so that its progress is tracked.
    #[inline]
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow
    }

    pub(crate) fn set_slow(&mut self, is_slow: bool) {
        self.is_slow = is_slow;
    }

    #[inline]
    pub(crate) fn queue(&mut self, frame: Bytes, need: Need) {
        self.outbox.push(frame, need);
    }

    pub(crate) fn drop_oldest(&mut self, bytes: usize) -> Dropped {
        self.outbox.drop_oldest(bytes)
    }

    pub(crate) fn advance(&mut self, bytes: usize) {
        self.outbox.advance(bytes);
    }

    /// Seals the outbox into TLS records, appended to `records`. Fails if the socket can't seal; the outbox is then
    /// unchanged.
    pub(crate) fn seal(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        let Self { outbox, socket, .. } = self;
        outbox.write_with(|slices| socket.seal(slices, records))
    }

    /// Defers frames to the end of the batch. Returns the batch of the last deferred write, unless frames were
    /// already deferred.
    #[inline]
    pub(crate) fn defer(&mut self) -> Option<u32> {
        (!mem::replace(&mut self.is_dirty, true)).then_some(self.written_in)
    }

    /// Takes the deferred frames for writing, if any. Returns whether there were some.
    #[inline]
    pub(crate) fn take_deferred(&mut self) -> bool {
        mem::take(&mut self.is_dirty) && !self.outbox.is_empty()
    }

    #[inline]
    pub(crate) fn note_batch(&mut self, batch: u32) {
        self.written_in = batch;
    }

    /// Writes until the socket is full.
    ///
    /// # Errors
    /// `WouldBlock` if data remains; otherwise the socket failed.
    #[inline]
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        self.is_dirty = false;
        self.outbox.try_flush(&self.socket)
    }

    /// Leaves the rest to a task. Returns `false` if one exists.
    pub(crate) fn begin_flush(&mut self) -> bool {
        !mem::replace(&mut self.is_flushing, true)
    }

    /// Writes as the socket accepts data, until nothing remains.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_flush(cx, &self.socket)
    }

    pub(crate) fn end_flush(&mut self) {
        self.is_flushing = false;
    }

    pub(crate) fn discard(&mut self) {
        self.outbox = Outbox::Empty;
    }

    /// Takes the socket, which ends its flush task.
    pub(crate) fn detach(&mut self) -> Socket {
        self.is_flushing = false;
        mem::replace(&mut self.socket, Socket::Away)
    }

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
        wire.queue(Bytes::from_static(b"one"), Need::Must);
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
