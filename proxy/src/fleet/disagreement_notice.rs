//! Notice that nodes disagree about the members of the fleet, logged if it lasts while membership is stable.
//!
//! Nodes discover membership changes at different times, so every roll-out causes short disagreements. Pure: time is an
//! argument.

/// Time without a membership change after which a disagreement is logged. An unlinked node is removed after 10 s, and
/// the last node notices some seconds later.
const PATIENCE_MS: u64 = 20_000;

#[derive(Debug, Default)]
pub(super) struct DisagreementNotice {
    /// Membership hash of this node.
    own: Option<u64>,
    /// Start of the disagreement, with this node's view unchanged since.
    since_ms: u64,
    is_told: bool,
}

impl DisagreementNotice {
    /// Updates the state. Returns `Some(true)` to log a disagreement, and `Some(false)` to log its end.
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

    /// Runs one update per second from `seconds.start`; returns the logged notices with their seconds.
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
