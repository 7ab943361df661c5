//! Received numbers of each sender at one receiver: distinguishes in-order, late and repeated numbers.
//!
//! Needs four bytes per pair of sender and receiver, and an entry per currently missing number.

use std::collections::BTreeSet;

/// Classification of a received number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Next number of its sender, or beyond a gap.
    InOrder,
    /// Previously missing: a later number of its sender arrived first.
    Late,
    Duplicate,
    /// Number of an unknown sender, or sent before the receiver joined.
    Unexpected,
}

/// Senders of one receiver.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracks {
    next: Vec<u32>,
    missing: BTreeSet<(u32, u32)>,
    /// Next number of each sender when the receiver joined; empty if all are zero.
    from: Vec<u32>,
}

impl Tracks {
    /// Expects all future messages of these senders, given their next numbers.
    pub(crate) fn from_now(senders: &[u32]) -> Self {
        let from = if senders.iter().all(|&next| next == 0) { Vec::new() } else { senders.to_vec() };
        Self { next: senders.to_vec(), missing: BTreeSet::new(), from }
    }

    pub(crate) fn arrived(&mut self, sender: u32, number: u32) -> Arrival {
        let index = sender as usize;
        let from = self.from.get(index).copied().unwrap_or(0);
        let Some(next) = self.next.get_mut(index).filter(|_| number >= from) else {
            return Arrival::Unexpected;
        };
        if number >= *next {
            self.missing.extend((*next..number).map(|number| (sender, number)));
            *next = number + 1;
            Arrival::InOrder
        } else if self.missing.remove(&(sender, number)) {
            Arrival::Late
        } else {
            Arrival::Duplicate
        }
    }

    /// Missing numbers, given how many each sender has sent.
    pub(crate) fn missing(&self, sent: &[u32]) -> impl Iterator<Item = (u32, u32)> {
        let tails = self.next.iter().zip(sent).zip(0_u32..);
        let tails = tails.flat_map(|((&next, &sent), sender)| (next..sent).map(move |number| (sender, number)));
        self.missing.iter().copied().chain(tails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(tracks: &mut Tracks, numbers: &[u32]) -> Vec<Arrival> {
        numbers.iter().map(|&number| tracks.arrived(0, number)).collect()
    }

    #[test]
    fn gaps_late_comers_and_repetitions_are_told_apart() {
        use Arrival::{Duplicate, InOrder, Late};
        let mut tracks = Tracks::from_now(&[0]);
        let found = arrivals(&mut tracks, &[0, 3, 1, 1, 3, 4]);
        assert_eq!(found, [InOrder, InOrder, Late, Duplicate, Duplicate, InOrder]);
        assert_eq!(tracks.missing(&[7]).collect::<Vec<_>>(), [(0, 2), (0, 5), (0, 6)]);
    }

    #[test]
    fn received_one_and_ten_misses_eight() {
        let mut tracks = Tracks::from_now(&[1]);
        arrivals(&mut tracks, &[1, 10]);
        assert_eq!(tracks.missing(&[11]).count(), 8);
    }

    #[test]
    fn losses_at_head_and_tail_are_seen() {
        let mut tracks = Tracks::from_now(&[0]);
        arrivals(&mut tracks, &[2, 3]);
        assert_eq!(tracks.missing(&[6]).collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 4), (0, 5)]);
    }

    #[test]
    fn earlier_messages_are_not_expected() {
        let mut tracks = Tracks::from_now(&[5]);
        assert_eq!(arrivals(&mut tracks, &[4, 5]), [Arrival::Unexpected, Arrival::InOrder]);
        assert_eq!(tracks.missing(&[6]).count(), 0);
    }

    #[test]
    fn senders_do_not_disturb_each_other() {
        let mut tracks = Tracks::from_now(&[0, 0]);
        assert_eq!(tracks.arrived(1, 0), Arrival::InOrder);
        assert_eq!(tracks.arrived(0, 0), Arrival::InOrder);
        assert_eq!(tracks.arrived(2, 0), Arrival::Unexpected);
    }
}
