//! Views: the members seen by each node of a fleet, and whether all nodes agree.

use std::hash::Hasher;

use fnv::FnvHasher;

use crate::limits::AGREEMENT_GRACE_MS;

/// Hashes a set of boot ids, ignoring order and duplicates.
pub fn view_of<'a>(boots: impl Iterator<Item = &'a str>) -> u64 {
    let mut boots: Vec<&str> = boots.collect();
    boots.sort_unstable();
    boots.dedup();
    let mut hasher = FnvHasher::default();
    for boot in boots {
        hasher.write(boot.as_bytes());
        // Ids never contain this byte, so it separates them.
        hasher.write(&[0]);
    }
    hasher.finish()
}

/// Agreement of the views in a fleet. Changes are reported only after a grace period: a node that starts or stops is
/// not a split.
#[derive(Debug, Clone)]
pub struct Agreement {
    agrees: bool,
    /// Time since which the views differ from the reported state.
    differs_since_ms: Option<u64>,
}

impl Default for Agreement {
    fn default() -> Self {
        Self { agrees: true, differs_since_ms: None }
    }
}

impl Agreement {
    /// Compares this node's view with the others. Returns a change once it has lasted.
    pub fn update(&mut self, own: u64, mut others: impl Iterator<Item = u64>, now_ms: u64) -> Option<bool> {
        let agree_now = others.all(|view| view == own);
        if agree_now == self.agrees {
            self.differs_since_ms = None;
            return None;
        }
        let since_ms = *self.differs_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) < AGREEMENT_GRACE_MS {
            return None;
        }
        (self.agrees, self.differs_since_ms) = (agree_now, None);
        Some(agree_now)
    }

    /// Whether all nodes see the same members, as last reported.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.agrees
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_depends_on_the_members_alone() {
        let view = view_of(["b1", "b2", "b3"].into_iter());
        assert_eq!(view_of(["b3", "b1", "b2", "b1"].into_iter()), view);
        assert_ne!(view_of(["b1", "b2"].into_iter()), view);
        assert_ne!(view_of(["b1b2", "b3"].into_iter()), view);
        assert_ne!(view_of(["b1", "b2b3"].into_iter()), view);
    }

    #[test]
    fn a_view_is_the_same_in_every_version() {
        assert_eq!(view_of([].into_iter()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(view_of(["b1", "b2"].into_iter()), 0x7286_5fec_180f_8e10);
    }

    #[test]
    fn a_change_is_reported_once_it_has_lasted() {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.update(1, [1, 2].into_iter(), 1_000), None);
        assert_eq!(agreement.update(1, [1, 2].into_iter(), 5_999), None);
        assert!(agreement.agrees());
        assert_eq!(agreement.update(1, [1, 2].into_iter(), 6_000), Some(false));
        assert_eq!(agreement.update(1, [1, 2].into_iter(), 20_000), None);
        assert!(!agreement.agrees());
        assert_eq!(agreement.update(2, [2, 2].into_iter(), 20_000), None);
        assert_eq!(agreement.update(2, [2, 2].into_iter(), 25_000), Some(true));
        assert!(agreement.agrees());
    }

    #[test]
    fn a_change_that_ends_in_time_is_never_reported() {
        let mut agreement = Agreement::default();
        for second in 0..60 {
            let view = u64::from(second % 5 != 4);
            assert_eq!(agreement.update(0, [view].into_iter(), second * 1_000), None, "{second}");
        }
    }

    #[test]
    fn a_node_alone_agrees_with_itself() {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.update(7, [].into_iter(), 0), None);
        assert!(agreement.agrees());
    }
}
