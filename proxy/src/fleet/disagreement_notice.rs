//! Notice that the nodes of the fleet see different members: told once it has lasted while no member came or went.
//!
//! Each member that comes or goes is seen by some nodes first, so a disagreement then is a part of every roll-out.
//! Pure: time comes in as an argument.

/// Time without a change of members after which a disagreement is told: a node without links is gone after 10 s, and
/// the last one has heard of it some seconds later.
const PATIENCE_MS: u64 = 20_000;

/// State of the notice.
#[derive(Debug, Default)]
pub(super) struct DisagreementNotice {
    /// View of this node.
    own: Option<u64>,
    /// Time since which the others have seen something else, and this node the same.
    since_ms: u64,
    is_told: bool,
}

impl DisagreementNotice {
    /// Takes the view of this node, and whether the others have the same; returns that a disagreement is to be told
    /// (`Some(true)`), or its end.
    pub(super) fn update(&mut self, own: u64, agrees: bool, now_ms: u64) -> Option<bool> {
        if agrees || self.own != Some(own) {
            (self.own, self.since_ms) = (Some(own), now_ms);
        }
        let has_lasted = now_ms.saturating_sub(self.since_ms) >= PATIENCE_MS;
        if agrees == self.is_told && (agrees || has_lasted) {
            self.is_told = !agrees;
            return Some(self.is_told);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Updates once a second, from `seconds.start` on; returns the second and the notice of each that is told.
    fn told(
        notice: &mut DisagreementNotice,
        own: u64,
        agrees: bool,
        seconds: std::ops::Range<u64>,
    ) -> Vec<(u64, bool)> {
        seconds.filter_map(|at| Some((at, notice.update(own, agrees, at * 1000)?))).collect()
    }

    #[test]
    fn members_that_come_and_go_are_no_news() {
        let mut notice = DisagreementNotice::default();
        for round in 0..10 {
            let begin = round * 20;
            assert_eq!(told(&mut notice, round, false, begin..begin + 15), []);
            assert_eq!(told(&mut notice, round, true, begin + 15..begin + 20), []);
        }
    }

    #[test]
    fn a_member_that_this_node_sees_last_is_no_news() {
        let mut notice = DisagreementNotice::default();
        assert_eq!(told(&mut notice, 1, true, 0..3_600), []);
        assert_eq!(told(&mut notice, 1, false, 3_600..3_610), []);
        assert_eq!(told(&mut notice, 2, true, 3_610..3_700), []);
    }

    #[test]
    fn a_disagreement_that_stays_is_told_once_and_so_is_its_end() {
        let mut notice = DisagreementNotice::default();
        assert_eq!(told(&mut notice, 1, true, 0..60), []);
        assert_eq!(told(&mut notice, 2, false, 60..200), [(80, true)]);
        assert_eq!(told(&mut notice, 3, false, 200..300), [], "it is known");
        assert_eq!(told(&mut notice, 3, true, 300..400), [(300, false)]);
    }
}
