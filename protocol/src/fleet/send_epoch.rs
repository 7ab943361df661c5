//! Epochs of one sender's sends to many clients, with counters that show when all sends of earlier epochs are queued.
//!
//! A moving client is served by its old node up to an epoch and by its new node afterwards. So all copies of a send
//! carry one epoch, and an epoch ends when each of its sends is queued for all nodes.
//!
//! ```text
//!  send:  read the epoch ─► count under its parity ─► still that epoch? ─ yes ─► queue all copies ─► uncount
//!              ▲                                        └─ no ─► uncount ─┐
//!              └──────────────────────────────────────────────────────────┘
//!  move:  advance to e + 1 ─► wait until nothing counts under the parity of e ─► all sends up to e are queued
//! ```
//!
//! Two counters suffice, because an epoch begins only after the one before the previous has ended.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// Ordering of every step: a send that is counted too late must see the new epoch.
const ORDER: Ordering = Ordering::SeqCst;

/// Current epoch, and the number of sends in flight in the current and previous one. Never blocks.
#[derive(Debug, Default)]
pub struct SendEpoch {
    current: AtomicI64,
    even: AtomicUsize,
    odd: AtomicUsize,
}

impl SendEpoch {
    /// Epoch of new sends; zero before the first advance.
    #[must_use]
    pub fn current(&self) -> i64 {
        self.current.load(ORDER)
    }

    /// Counts a send under this epoch. The send has begun if the epoch is still current afterwards.
    pub fn enter(&self, epoch: i64) {
        self.count_of(epoch).fetch_add(1, ORDER);
    }

    /// Ends a counted send. Returns whether it may complete an epoch that an advance waits for.
    pub fn leave(&self, epoch: i64) -> bool {
        let before = self.count_of(epoch).fetch_sub(1, ORDER);
        debug_assert!(before > 0, "every exit follows an entry");
        before == 1 && self.current() != epoch
    }

    /// Begins the next epoch and returns it. Only one caller at a time, which waits for the previous epoch before
    /// advancing again.
    pub fn advance(&self) -> i64 {
        self.current.fetch_add(1, ORDER) + 1
    }

    /// Whether all sends of the previous epoch are queued.
    #[must_use]
    pub fn is_last_over(&self) -> bool {
        self.count_of(self.current() + 1).load(ORDER) == 0
    }

    fn count_of(&self, epoch: i64) -> &AtomicUsize {
        if epoch & 1 == 0 { &self.even } else { &self.odd }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Next step of a send.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    enum SendStep {
        Read,
        Enter(i64),
        Check(i64),
        /// The epoch is final; the send queues its copies.
        Queue(i64),
        LeaveToRetry(i64),
        Leave(i64),
        Over,
    }

    /// State of the model: the counters, senders in a loop, and a mover.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Moment {
        counters: (i64, usize, usize),
        sends: [SendStep; 3],
        /// Remaining sends of each sender.
        left: [u8; 3],
        /// The mover waits for the previous epoch.
        is_waiting: bool,
        is_woken: bool,
        advances: u8,
    }

    impl Moment {
        fn counters(&self) -> SendEpoch {
            let (current, even, odd) = self.counters;
            SendEpoch { current: current.into(), even: even.into(), odd: odd.into() }
        }

        fn with(mut self, counters: &SendEpoch) -> Self {
            self.counters = (counters.current(), counters.even.load(ORDER), counters.odd.load(ORDER));
            self
        }

        /// Lets one sender take its next step.
        fn step(&self, sender: usize) -> Option<Self> {
            let (counters, mut next) = (self.counters(), self.clone());
            let leave = |next: &mut Self, epoch| next.is_woken |= counters.leave(epoch);
            next.sends[sender] = match self.sends[sender] {
                SendStep::Read => SendStep::Enter(counters.current()),
                SendStep::Enter(epoch) => {
                    counters.enter(epoch);
                    SendStep::Check(epoch)
                }
                SendStep::Check(epoch) if counters.current() == epoch => SendStep::Queue(epoch),
                SendStep::Check(epoch) => SendStep::LeaveToRetry(epoch),
                SendStep::LeaveToRetry(epoch) => {
                    leave(&mut next, epoch);
                    SendStep::Read
                }
                SendStep::Queue(epoch) => SendStep::Leave(epoch),
                SendStep::Leave(epoch) => {
                    leave(&mut next, epoch);
                    next.left[sender] -= 1;
                    if next.left[sender] == 0 { SendStep::Over } else { SendStep::Read }
                }
                SendStep::Over => return None,
            };
            Some(next.with(&counters))
        }

        /// Executes the mover's next step: advance, or check whether the previous epoch has ended.
        fn step_of_mover(&self) -> Option<Self> {
            let (counters, mut next) = (self.counters(), self.clone());
            if !self.is_waiting {
                next.advances = self.advances.checked_sub(1)?;
                counters.advance();
                // The mover checks once unprompted.
                (next.is_waiting, next.is_woken) = (true, true);
                return Some(next.with(&counters));
            }
            if !self.is_woken {
                return None;
            }
            next.is_woken = false;
            if counters.is_last_over() {
                next.is_waiting = false;
                let unqueued = |step: &SendStep| matches!(step, SendStep::Queue(epoch) if *epoch < counters.current());
                assert!(!self.sends.iter().any(unqueued), "{self:?}");
            }
            Some(next.with(&counters))
        }
    }

    /// Explores all interleavings of three senders and a mover that advances three times.
    #[test]
    fn in_any_order_of_steps_a_move_waits_for_all_sends_of_earlier_epochs() {
        let begin = Moment {
            counters: (0, 0, 0),
            sends: [SendStep::Read; 3],
            left: [2, 1, 1],
            is_waiting: false,
            is_woken: false,
            advances: 3,
        };
        let (mut seen, mut open, mut ends) = (HashSet::from([begin.clone()]), vec![begin], 0);
        while let Some(moment) = open.pop() {
            let sent = (0..moment.sends.len()).filter_map(|sender| moment.step(sender));
            let next: Vec<_> = sent.chain(moment.step_of_mover()).collect();
            if next.is_empty() {
                assert_eq!((moment.is_waiting, moment.advances), (false, 0), "nobody wakes the mover: {moment:?}");
                assert_eq!(moment.counters, (3, 0, 0));
                ends += 1;
            }
            open.extend(next.into_iter().filter(|next| seen.insert(next.clone())));
        }
        assert!(ends > 0 && seen.len() > 10_000, "{ends} ends, {} moments", seen.len());
    }
}
