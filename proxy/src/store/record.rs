//! Stored records, and the step from one to the next. Times are those of the store's clock, except of tokens.
//!
//! Each change of a record is later than the one before (`changed_ms`), so a copy of an old value is recognised by
//! every node that has seen a newer one.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use trunkline_protocol::fleet::SharedRevocation;

use crate::user_group::{LEFT_REMEMBERED_MS, StoredMembership};

/// Time after its end for which a record stays in the engine, in milliseconds.
const END_MARGIN_MS: u64 = 20_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Record {
    Revocation {
        user: Option<ByteString>,
        audience: Option<ByteString>,
        app: Option<ByteString>,
        issued_before_s: u64,
        kept_until_s: u64,
    },
    Membership(StoredMembership),
}

/// Change of a membership, requested by a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Join {
        seconds: u64,
    },
    Leave,
    /// The state of this node, if it is newer.
    Keep,
}

impl Record {
    pub(super) fn revocation(
        user: Option<ByteString>,
        audience: Option<ByteString>,
        app: Option<ByteString>,
        issued_before_s: u64,
        kept_until_s: u64,
    ) -> Self {
        Self::Revocation { user, audience, app, issued_before_s, kept_until_s }
    }

    /// Kind, and the names that identify the record.
    pub(super) fn identity(&self) -> (&'static str, [Option<&str>; 3]) {
        match self {
            Self::Revocation { user, audience, app, .. } => {
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
            Self::Revocation { kept_until_s, .. } => kept_until_s.saturating_mul(1000),
            // Nodes that were away learn of the end, too.
            Self::Membership(StoredMembership { until_ms: 0, changed_ms, .. }) => {
                changed_ms.saturating_add(LEFT_REMEMBERED_MS.unsigned_abs())
            }
            Self::Membership(StoredMembership { until_ms, .. }) => *until_ms,
        };
        (end_ms > now_ms).then(|| end_ms - now_ms + END_MARGIN_MS)
    }

    /// Revocation that includes both. `None` if `stored` already does.
    pub(super) fn revoked(told: &SharedRevocation, stored: Option<&Record>) -> Option<Self> {
        let (mut issued_before_s, mut kept_until_s) = (told.issued_before_s, told.kept_until_s);
        if let Some(Self::Revocation { issued_before_s: issued, kept_until_s: kept, .. }) = stored {
            if issued_before_s <= *issued && kept_until_s <= *kept {
                return None;
            }
            (issued_before_s, kept_until_s) = (issued_before_s.max(*issued), kept_until_s.max(*kept));
        }
        let SharedRevocation { user, audience, app, .. } = told.clone();
        Some(Self::revocation(user, audience, app, issued_before_s, kept_until_s))
    }

    /// Next state of a membership. `None` if there is nothing to write.
    pub(super) fn changed(
        own: &StoredMembership,
        step: &Step,
        stored: Option<&Record>,
        now_ms: u64,
    ) -> Option<StoredMembership> {
        let stored = match stored {
            Some(Self::Membership(stored)) => Some(stored),
            _ => None,
        };
        let changed_ms = stored.map_or(0, |stored| stored.changed_ms.saturating_add(1)).max(now_ms);
        let is_in = stored.is_some_and(|stored| stored.until_ms > now_ms);
        match step {
            Step::Join { seconds } => {
                let until_ms = now_ms.saturating_add(seconds.saturating_mul(1000));
                Some(StoredMembership { until_ms, changed_ms, ..own.clone() })
            }
            Step::Leave => is_in.then(|| StoredMembership { until_ms: 0, changed_ms, ..own.clone() }),
            Step::Keep => match stored {
                None => (own.until_ms > now_ms).then(|| own.clone()),
                Some(stored) => {
                    (own.changed_ms > stored.changed_ms && !own.is_like(stored, now_ms)).then(|| own.clone())
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn membership(until_ms: u64, changed_ms: u64) -> StoredMembership {
        let [hub, user, group] = ["chat", "ann", "red"].map(Into::into);
        StoredMembership { hub, user, group, until_ms, changed_ms }
    }

    #[test]
    fn a_revocation_only_grows() {
        let told = |issued_before_s, kept_until_s| SharedRevocation {
            user: Some("ann".into()),
            audience: None,
            app: None,
            issued_before_s,
            kept_until_s,
            closed_ms: 7,
        };
        let record = |issued, kept| Record::revocation(Some("ann".into()), None, None, issued, kept);
        assert_eq!(Record::revoked(&told(10, 20), None), Some(record(10, 20)));
        assert_eq!(Record::revoked(&told(10, 20), Some(&record(10, 20))), None);
        assert_eq!(Record::revoked(&told(5, 30), Some(&record(10, 20))), Some(record(10, 30)));
        assert_eq!(Record::revoked(&told(5, 15), Some(&record(10, 20))), None);
    }

    #[test]
    fn each_change_is_later_than_the_stored_one_whatever_the_clock_says() {
        let own = membership(0, 0);
        let ahead = Record::Membership(membership(NOW_MS + 50_000, NOW_MS + 9_000));
        let next = |step, stored| Record::changed(&own, &step, stored, NOW_MS);
        let joined = next(Step::Join { seconds: 10 }, Some(&ahead)).unwrap();
        assert_eq!((joined.until_ms, joined.changed_ms), (NOW_MS + 10_000, NOW_MS + 9_001));
        assert_eq!(next(Step::Leave, Some(&ahead)), Some(membership(0, NOW_MS + 9_001)));
        assert_eq!(next(Step::Join { seconds: 10 }, None), Some(membership(NOW_MS + 10_000, NOW_MS)));
        assert_eq!(next(Step::Join { seconds: u64::MAX }, None).unwrap().until_ms, u64::MAX);
        for stored in [None, Some(&Record::Membership(membership(0, 5))), Some(&Record::Membership(membership(9, 5)))] {
            assert_eq!(next(Step::Leave, stored), None, "nothing to leave");
        }
    }

    #[test]
    fn the_newer_of_two_states_is_kept() {
        let keep = |own: &StoredMembership, stored: &StoredMembership| {
            Record::changed(own, &Step::Keep, Some(&Record::Membership(stored.clone())), NOW_MS)
        };
        let (old, new) = (membership(NOW_MS + 90_000, 10), membership(0, 20));
        assert_eq!(keep(&new, &old), Some(new.clone()));
        assert_eq!(keep(&old, &new), None);
        let late = membership(NOW_MS + 93_000, 30);
        assert_eq!(keep(&late, &old), None, "the same, measured by another node");
        let renewed = membership(NOW_MS + 190_000, 30);
        assert_eq!(keep(&renewed, &old), Some(renewed.clone()));
        let short = (membership(NOW_MS + 1_000, 10), membership(NOW_MS + 5_000, 20));
        assert_eq!(keep(&short.1, &short.0), Some(short.1.clone()), "a short one is renewed");
        assert_eq!(Record::changed(&new, &Step::Keep, None, NOW_MS), None, "an end of nothing");
        assert_eq!(Record::changed(&old, &Step::Keep, None, NOW_MS), Some(old));
    }

    #[test]
    fn the_engine_keeps_a_record_for_somewhat_longer_than_it_holds() {
        let kept = |record: &Record| record.kept_ms(NOW_MS);
        assert_eq!(kept(&Record::revocation(None, None, None, 1, 1_010)), Some(30_000));
        assert_eq!(kept(&Record::revocation(None, None, None, 1, 1_000)), None);
        assert_eq!(kept(&Record::Membership(membership(NOW_MS + 5, 1))), Some(20_005));
        assert_eq!(kept(&Record::Membership(membership(0, NOW_MS))), Some(3_620_000));
    }
}
