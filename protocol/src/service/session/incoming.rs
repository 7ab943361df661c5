//! Numbering of incoming frames, which drops duplicates.
//!
//! Frames carry no number; both ends count. The numbering belongs to the link's reader, needs no lock, and lives as
//! long as the session. [`attach`](Incoming::attach) sets the point from which the peer replays on a new socket.
//!
//! ```text
//!  sent in the upgrade: 7          the new socket brings   8  9  10  11
//!  handed out so far:   9                                  ─duplicates─  new
//! ```

/// Numbering of incoming frames.
#[derive(Debug, Clone, Default)]
pub struct Incoming {
    /// Number of the last frame on the current socket.
    at: u64,
    handed_out: u64,
}

impl Incoming {
    /// Creates the numbering of a session with all frames up to `received` taken.
    #[must_use]
    pub fn after(received: u64) -> Self {
        Self { at: received, handed_out: received }
    }

    /// Starts with a new socket: the peer continues after this frame.
    pub fn attach(&mut self, told: u64) {
        self.at = told;
    }

    /// Numbers a counted frame. Returns `None` for a duplicate, which the caller drops.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and `None` is no end")]
    pub fn next(&mut self) -> Option<u64> {
        self.at += 1;
        (self.at > self.handed_out).then(|| {
            self.handed_out = self.at;
            self.at
        })
    }

    /// Number of the last frame that was not a duplicate.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        self.handed_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_1() {
        let mut incoming = Incoming::default();
        assert_eq!((incoming.next(), incoming.next()), (Some(1), Some(2)));
    }

    #[test]
    fn replayed_frames_that_were_delivered_are_dropped() {
        let mut incoming = Incoming::default();
        while incoming.handed_out() < 9 {
            incoming.next();
        }
        incoming.attach(7);
        let numbers: Vec<_> = (0..4).map(|_| incoming.next()).collect();
        assert_eq!(numbers, [None, None, Some(10), Some(11)]);
    }

    #[test]
    fn frames_read_but_not_taken_are_delivered_to_a_new_numbering() {
        let mut incoming = Incoming::after(7);
        incoming.attach(7);
        assert_eq!(incoming.next(), Some(8));
    }
}
