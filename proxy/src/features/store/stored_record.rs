//! Stored records, and the step from one to the next. Times of memberships are by the store's clock.
//!
//! Each change of a record is later than the one before (`changed_ms`), so a copy of an old value is recognised by
//! every node that has seen a newer one.

use serde::{Deserialize, Serialize};
use trunkline_protocol::fleet::SharedRevocation;

use crate::features::user_group::{LEFT_REMEMBERED_MS, StoredMembership};

/// Time after its end for which a record stays in the engine, in milliseconds.
const END_MARGIN_MS: u64 = 20_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Record {
    Revocation(SharedRevocation),
    Membership(StoredMembership),
}

/// Change of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreStep {
    /// Begins or renews a membership.
    Join { seconds: u64 },
    /// Ends a membership, if there is one.
    Leave,
    /// The state of this node, if it is newer.
    Keep,
}

impl Record {
    /// Kind, and the names that identify the record.
    pub(super) fn identity(&self) -> (&'static str, [Option<&str>; 3]) {
        match self {
            Self::Revocation(SharedRevocation { user, audience, app, .. }) => {
                ("revocation", [user.as_deref(), audience.as_deref(), app.as_deref()])
            }
            Self::Membership(StoredMembership { hub, user, group, .. }) => {
                ("membership", [Some(&**hub), Some(&**user), Some(&**group)])
            }
        }
    }

    /// Time for which the engine keeps the record; `None` if it has ended.
    pub(super) fn kept_ms(&self, now_ms: u64) -> Option<u64> {
        let end_ms = match self {
            Self::Revocation(told) => told.kept_until_s.saturating_mul(1000),
            // Nodes that were away learn of the end, too.
            Self::Membership(StoredMembership { until_ms: 0, changed_ms, .. }) => {
                changed_ms.saturating_add(LEFT_REMEMBERED_MS.unsigned_abs())
            }
            Self::Membership(StoredMembership { until_ms, .. }) => *until_ms,
        };
        (end_ms > now_ms).then(|| end_ms - now_ms + END_MARGIN_MS)
    }

    /// State after a step from the stored one. `None` if there is nothing to write.
    pub(super) fn next(&self, step: StoreStep, stored: Option<&Self>, now_ms: u64) -> Option<Self> {
        match (self, stored) {
            (Self::Revocation(own), Some(Self::Revocation(stored))) => {
                let issued_before_s = own.issued_before_s.max(stored.issued_before_s);
                let kept_until_s = own.kept_until_s.max(stored.kept_until_s);
                let is_larger = (issued_before_s, kept_until_s) != (stored.issued_before_s, stored.kept_until_s);
                is_larger.then(|| Self::Revocation(SharedRevocation { issued_before_s, kept_until_s, ..own.clone() }))
            }
            (Self::Revocation(_), _) => Some(self.clone()),
            (Self::Membership(own), Some(Self::Membership(stored))) => changed(own, step, Some(stored), now_ms),
            (Self::Membership(own), _) => changed(own, step, None, now_ms),
        }
    }
}

fn changed(own: &StoredMembership, step: StoreStep, stored: Option<&StoredMembership>, now_ms: u64) -> Option<Record> {
    let changed_ms = stored.map_or(0, |stored| stored.changed_ms.saturating_add(1)).max(now_ms);
    let is_in = stored.is_some_and(|stored| stored.until_ms > now_ms);
    let next = match step {
        StoreStep::Join { seconds } => {
            let until_ms = now_ms.saturating_add(seconds.saturating_mul(1000));
            Some(StoredMembership { until_ms, changed_ms, ..own.clone() })
        }
        StoreStep::Leave => is_in.then(|| StoredMembership { until_ms: 0, changed_ms, ..own.clone() }),
        StoreStep::Keep => {
            let is_newer = match stored {
                None => own.until_ms > now_ms,
                Some(stored) => own.changed_ms > stored.changed_ms && !own.is_like(stored, now_ms),
            };
            is_newer.then(|| own.clone())
        }
    };
    next.map(Record::Membership)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn membership(until_ms: u64, changed_ms: u64) -> Record {
        let [hub, user, group] = ["chat", "ann", "red"].map(Into::into);
        Record::Membership(StoredMembership { hub, user, group, until_ms, changed_ms })
    }

    fn revocation(issued_before_s: u64, kept_until_s: u64) -> Record {
        let user = Some("ann".into());
        let told = SharedRevocation { user, audience: None, app: None, issued_before_s, kept_until_s, closed_ms: 0 };
        Record::Revocation(told)
    }

    #[test]
    fn a_revocation_only_grows() {
        let (stored, told) = (revocation(10, 20), revocation);
        let next = |own: Record, stored| own.next(StoreStep::Keep, stored, NOW_MS);
        assert_eq!(next(told(10, 20), None), Some(told(10, 20)));
        assert_eq!(next(told(10, 20), Some(&stored)), None);
        assert_eq!(next(told(5, 30), Some(&stored)), Some(told(10, 30)));
        assert_eq!(next(told(5, 15), Some(&stored)), None);
    }

    #[test]
    fn each_change_is_later_than_the_stored_one_whatever_the_clock_says() {
        let ahead = membership(NOW_MS + 50_000, NOW_MS + 9_000);
        let next = |step, stored| membership(0, 0).next(step, stored, NOW_MS);
        let join = StoreStep::Join { seconds: 10 };
        assert_eq!(next(join, Some(&ahead)), Some(membership(NOW_MS + 10_000, NOW_MS + 9_001)));
        assert_eq!(next(StoreStep::Leave, Some(&ahead)), Some(membership(0, NOW_MS + 9_001)));
        assert_eq!(next(join, None), Some(membership(NOW_MS + 10_000, NOW_MS)));
        assert_eq!(next(StoreStep::Join { seconds: u64::MAX }, None), Some(membership(u64::MAX, NOW_MS)));
        for stored in [None, Some(&membership(0, 5)), Some(&membership(9, 5))] {
            assert_eq!(next(StoreStep::Leave, stored), None, "nothing to leave");
        }
    }

    #[test]
    fn the_newer_of_two_states_is_kept() {
        let keep = |own: &Record, stored: &Record| own.next(StoreStep::Keep, Some(stored), NOW_MS);
        let (old, new) = (membership(NOW_MS + 90_000, 10), membership(0, 20));
        assert_eq!(keep(&new, &old), Some(new.clone()));
        assert_eq!(keep(&old, &new), None);
        let late = membership(NOW_MS + 93_000, 30);
        assert_eq!(keep(&late, &old), None, "the same, measured by another node");
        let renewed = membership(NOW_MS + 190_000, 30);
        assert_eq!(keep(&renewed, &old), Some(renewed.clone()));
        let short = (membership(NOW_MS + 1_000, 10), membership(NOW_MS + 5_000, 20));
        assert_eq!(keep(&short.1, &short.0), Some(short.1.clone()), "a short one is renewed");
        assert_eq!(new.next(StoreStep::Keep, None, NOW_MS), None, "an end of nothing");
        assert_eq!(old.next(StoreStep::Keep, None, NOW_MS), Some(old));
    }

    #[test]
    fn the_engine_keeps_a_record_for_somewhat_longer_than_it_holds() {
        let kept = |record: &Record| record.kept_ms(NOW_MS);
        assert_eq!(kept(&revocation(1, 1_010)), Some(30_000));
        assert_eq!(kept(&revocation(1, 1_000)), None);
        assert_eq!(kept(&membership(NOW_MS + 5, 1)), Some(20_005));
        assert_eq!(kept(&membership(0, NOW_MS)), Some(3_620_000));
    }
}
