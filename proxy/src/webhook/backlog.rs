//! Backlog of a node's webhooks: what waits for back ends, in bytes and in clients, and its bounds.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum number of clients that have gone and whose last events wait; what further ones leave behind is dropped.
const ENDED_MAX: usize = 16_384;

/// Backlog of all webhooks of a node.
#[derive(Debug)]
pub(super) struct Backlog {
    max_bytes: usize,
    bytes: AtomicUsize,
    clients: AtomicUsize,
    ended: AtomicUsize,
}

/// Part of one client in the backlog; it leaves with its value.
#[derive(Debug)]
pub(super) struct BacklogShare {
    backlog: std::sync::Arc<Backlog>,
    bytes: usize,
    has_ended: bool,
}

impl Backlog {
    #[must_use]
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: AtomicUsize::new(0), clients: AtomicUsize::new(0), ended: AtomicUsize::new(0) }
    }

    /// Bytes of events that wait, those under way included, and of what is known of clients that have gone.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Clients whose end nobody has been told of.
    #[must_use]
    pub(super) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Whether more waits than may.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.bytes() > self.max_bytes
    }

    /// Whether as many clients have gone as may be told of later.
    #[must_use]
    pub(super) fn has_too_many_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > ENDED_MAX
    }
}

impl BacklogShare {
    /// Share of a client that has come.
    #[must_use]
    pub(super) fn new(backlog: &std::sync::Arc<Backlog>) -> Self {
        backlog.clients.fetch_add(1, Ordering::Relaxed);
        Self { backlog: backlog.clone(), bytes: 0, has_ended: false }
    }

    /// Bytes of the client that wait.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        let removed = bytes.min(self.bytes);
        self.bytes -= removed;
        self.backlog.bytes.fetch_sub(removed, Ordering::Relaxed);
    }

    /// Notes that the client has gone.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.backlog.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for BacklogShare {
    fn drop(&mut self) {
        self.remove(self.bytes);
        self.backlog.clients.fetch_sub(1, Ordering::Relaxed);
        if self.has_ended {
            self.backlog.ended.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_share_leaves_nothing_behind() {
        let backlog = Arc::new(Backlog::new(10));
        let (mut one, mut other) = (BacklogShare::new(&backlog), BacklogShare::new(&backlog));
        one.add(7);
        other.add(7);
        assert!(backlog.is_full());
        one.remove(3);
        one.end();
        one.end();
        assert_eq!((one.bytes(), backlog.bytes(), backlog.clients(), backlog.is_full()), (4, 11, 2, true));
        drop(one);
        assert_eq!((backlog.bytes(), backlog.clients(), backlog.is_full()), (7, 1, false));
        drop(other);
        assert_eq!((backlog.bytes(), backlog.clients(), backlog.ended.load(Ordering::Relaxed)), (0, 0, 0));
    }
}
