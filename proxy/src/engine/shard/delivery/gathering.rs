//! Gathering of a batch's frames, until its end or window by window.
//!
//! Gathered until the end, all frames for one client are written in one system call. But a second pass over thousands
//! of clients finds them no longer in the CPU caches. So if clients get one frame each, a few hundred clients at a time
//! are written. If windows reach the same clients repeatedly, the next batches are gathered whole.
//!
//! ```text
//!  batch:  send to few │ to few │ … 256 clients: written │ to few │ … 256 clients: written │ … the rest
//!                                                            └─ repeated clients? ─► later batches: whole
//! ```

/// Number of clients in a window, few enough for the CPU caches.
pub(crate) const WINDOW: usize = 256;

/// Repeats count as frequent if more than one in this many frames is for a client of an earlier window.
const REPEATED_PART: u32 = 16;

/// Number of batches gathered whole after frequent repeats.
const WHOLE_BATCHES: u32 = 64;

#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// Batch number, different from the next one's.
    batch: u32,
    /// Set if a window was written in this batch.
    has_window: bool,
    /// Set if a send had more clients than a window, which need a second pass anyway.
    is_wide: bool,
    frames: u32,
    repeats: u32,
    /// Remaining number of long batches to gather whole.
    whole_left: u32,
}

impl Gathering {
    /// Number of this batch, recorded with clients that a window reaches.
    pub(crate) fn batch(&self) -> u32 {
        self.batch
    }

    /// Whether frames were gathered since the last batch ended.
    pub(crate) fn has_begun(&self) -> bool {
        self.frames > 0
    }

    /// Records a client's first frame in a window. `written_in` is the batch of the last window that reached
    /// it.
    pub(crate) fn note_deferred(&mut self, written_in: u32) {
        self.frames += 1;
        self.repeats += u32::from(self.has_window && written_in == self.batch);
    }

    /// Returns whether a window is full after a send. `before` and `waiting` are the numbers of clients with
    /// frames before and after.
    pub(crate) fn is_window_full(&mut self, before: usize, waiting: usize) -> bool {
        self.is_wide |= waiting.saturating_sub(before) > WINDOW;
        let is_full = waiting >= WINDOW && !self.is_wide && self.whole_left == 0;
        self.has_window |= is_full;
        is_full
    }

    /// Ends the batch. `waiting` is the remaining number of clients with frames.
    pub(crate) fn end_gathering(&mut self, waiting: usize) {
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

    /// Shard with clients that store the batch of their last window.
    #[derive(Default)]
    struct Shard {
        gathering: Gathering,
        written_in: Vec<u32>,
    }

    impl Shard {
        fn new(clients: usize) -> Self {
            Self { gathering: Gathering::default(), written_in: vec![u32::MAX; clients] }
        }

        /// Runs a batch of sends to these ranges of clients. Returns the number of clients per write.
        fn batch(&mut self, sends: impl IntoIterator<Item = std::ops::Range<usize>>) -> Vec<usize> {
            let (mut waiting, mut writes) = (std::collections::BTreeSet::new(), Vec::new());
            for send in sends {
                let before = waiting.len();
                for client in send.filter(|&client| waiting.insert(client)) {
                    self.gathering.note_deferred(self.written_in[client]);
                }
                if self.gathering.is_window_full(before, waiting.len()) {
                    writes.push(waiting.len());
                    waiting.iter().for_each(|&client| self.written_in[client] = self.gathering.batch());
                    waiting.clear();
                }
            }
            self.gathering.end_gathering(waiting.len());
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
