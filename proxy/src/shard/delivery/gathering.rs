//! Gathering of the frames of a batch: until its end, or window by window.
//!
//! Gathered until the end, all that a client gets leaves in one system call. But where a batch is for thousands of
//! clients, a second look at them is dear, because they have left the processor's caches by then. So frames leave for
//! some hundred clients at a time where clients get one each. That this is not so shows when windows reach the same
//! clients again; then the next batches are gathered whole.
//!
//! ```text
//!  batch:  send to few │ to few │ … 256 clients: written │ to few │ … 256 clients: written │ … the rest
//!                                                            └─ the same clients again? ─► later batches: whole
//! ```

/// Clients of a window: so many stay in the processor's caches.
pub(crate) const WINDOW: usize = 256;

/// A batch is one of repeats if this part of its frames is for clients that a window had reached before.
const REPEATED_PART: u32 = 16;

/// Batches that are gathered whole after one of repeats.
const WHOLE_BATCHES: u32 = 64;

/// The gathering of one shard's batches.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// Number of the batch; the next one's differs from it.
    batch: u32,
    /// Whether a window has been written in it.
    has_window: bool,
    /// One of its sends was for more clients than a window has: those are looked at twice in any case.
    is_wide: bool,
    frames: u32,
    repeats: u32,
    /// Number of long batches that are still gathered whole.
    whole_left: u32,
}

impl Gathering {
    /// Number of this batch, to be noted with clients that a window reaches.
    pub(crate) fn batch(&self) -> u32 {
        self.batch
    }

    /// Whether anything was gathered since the last batch ended.
    pub(crate) fn has_begun(&self) -> bool {
        self.frames > 0
    }

    /// Notes the first frame for a client since the window began. `written_in` is the batch whose window reached it
    /// last.
    pub(crate) fn note(&mut self, written_in: u32) {
        self.frames += 1;
        self.repeats += u32::from(self.has_window && written_in == self.batch);
    }

    /// Returns whether a window is full, behind a send. `waiting` is the number of clients with frames, and was
    /// `before` ahead of it.
    pub(crate) fn is_window_full(&mut self, before: usize, waiting: usize) -> bool {
        self.is_wide |= waiting.saturating_sub(before) > WINDOW;
        let is_full = waiting >= WINDOW && !self.is_wide && self.whole_left == 0;
        self.has_window |= is_full;
        is_full
    }

    /// Ends the batch, in which so many clients have frames at the end.
    pub(crate) fn end(&mut self, waiting: usize) {
        if self.has_window && self.repeats > self.frames / REPEATED_PART {
            self.whole_left = WHOLE_BATCHES;
        } else if waiting >= WINDOW && !self.is_wide {
            self.whole_left = self.whole_left.saturating_sub(1);
        }
        let (batch, whole_left) = (self.batch.wrapping_add(1), self.whole_left);
        *self = Self { batch, whole_left, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard whose clients know the batch of their last window.
    #[derive(Default)]
    struct Shard {
        gathering: Gathering,
        written_in: Vec<u32>,
    }

    impl Shard {
        fn new(clients: usize) -> Self {
            Self { gathering: Gathering::default(), written_in: vec![u32::MAX; clients] }
        }

        /// A batch of sends to these ranges of clients. Returns how many clients were written to each time.
        fn batch(&mut self, sends: impl IntoIterator<Item = std::ops::Range<usize>>) -> Vec<usize> {
            let (mut waiting, mut writes) = (std::collections::BTreeSet::new(), Vec::new());
            for send in sends {
                let before = waiting.len();
                for client in send.filter(|&client| waiting.insert(client)) {
                    self.gathering.note(self.written_in[client]);
                }
                if self.gathering.is_window_full(before, waiting.len()) {
                    writes.push(waiting.len());
                    waiting.iter().for_each(|&client| self.written_in[client] = self.gathering.batch());
                    waiting.clear();
                }
            }
            self.gathering.end(waiting.len());
            writes.push(waiting.len());
            writes
        }
    }

    fn tens(clients: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (0..clients).step_by(10).map(|first| first..first + 10)
    }

    #[test]
    fn sends_to_few_leave_window_by_window() {
        let mut shard = Shard::new(1000);
        for _ in 0..3 {
            assert_eq!(shard.batch(tens(1000)), [260, 260, 260, 220]);
        }
    }

    #[test]
    fn a_short_batch_and_one_for_many_are_gathered_whole() {
        let mut shard = Shard::new(1000);
        assert_eq!(shard.batch(tens(200)), [200]);
        assert_eq!(shard.batch([0..1000, 0..1000, 0..10]), [1000]);
        assert_eq!(shard.batch(std::iter::once(0..257).chain(tens(1000))), [1000]);
        assert_eq!(shard.batch(tens(300)), [260, 40], "that was about those batches only");
    }

    #[test]
    fn where_windows_reach_the_same_clients_the_next_batches_are_whole() {
        let mut shard = Shard::new(1000);
        let twice = || tens(1000).chain(tens(1000));
        assert_eq!(shard.batch(twice()).len(), 8);
        for _ in 0..WHOLE_BATCHES {
            assert_eq!(shard.batch(twice()), [1000]);
            shard.batch(tens(10));
        }
        assert_eq!(shard.batch(twice()).len(), 8, "it is tried again after so many long ones");
        assert_eq!(shard.batch(twice()).len(), 1);
    }

    #[test]
    fn a_few_repeats_are_no_reason_to_gather_all() {
        let mut shard = Shard::new(1000);
        for _ in 0..3 {
            assert_eq!(shard.batch(tens(1000).chain(tens(30))).len(), 4);
        }
    }
}
