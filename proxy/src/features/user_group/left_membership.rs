//! Memberships that users have left recently, so that older reports from other nodes don't restore them.

use bytestring::ByteString;

use crate::ground::bounded::Recent;

/// Maximum number of recently left memberships to keep. The oldest are evicted.
const LEFT_MAX: usize = 10_000;

/// Retention time. Nodes disconnected for longer may restore a membership.
pub(crate) const LEFT_REMEMBERED_MS: i64 = 3_600_000;

/// Fleet-wide hub name and a user. The hub may be unknown to this node.
pub(crate) type UserKey = (ByteString, ByteString);

#[derive(Debug)]
pub(crate) struct LeftMemberships(Recent<(UserKey, ByteString), i64, i64>);

impl Default for LeftMemberships {
    fn default() -> Self {
        Self(Recent::new(LEFT_MAX))
    }
}

impl LeftMemberships {
    pub(crate) fn note(&mut self, user: &UserKey, group: ByteString, at_ms: i64, now_ms: i64) {
        self.0.insert((user.clone(), group), at_ms, at_ms.saturating_add(LEFT_REMEMBERED_MS));
        self.0.expire(now_ms);
    }

    pub(crate) fn remove(&mut self, user: &UserKey, group: &str) {
        self.0.remove(&(user.clone(), group.into()));
    }

    pub(crate) fn at_ms(&self, user: &UserKey, group: &str) -> Option<i64> {
        self.0.get(&(user.clone(), group.into())).copied()
    }

    pub(crate) fn of(&self, user: &UserKey) -> impl Iterator<Item = (&ByteString, i64)> {
        let left = self.0.range((user.clone(), ByteString::new())..).take_while(move |((other, _), _)| other == user);
        left.map(|((_, group), at_ms)| (group, *at_ms))
    }

    /// Users that have left groups, one entry per group.
    pub(crate) fn users(&self) -> impl Iterator<Item = &UserKey> {
        self.0.keys().map(|(user, _)| user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> UserKey {
        ("chat".into(), "ann".into())
    }

    #[test]
    fn the_latest_are_remembered_for_their_time() {
        let (mut left, ann) = (LeftMemberships::default(), ann());
        for number in 0..=LEFT_MAX {
            left.note(&ann, number.to_string().into(), 0, 0);
        }
        assert_eq!((left.at_ms(&ann, "0"), left.at_ms(&ann, "1"), left.of(&ann).count()), (None, Some(0), LEFT_MAX));
        let later = LEFT_REMEMBERED_MS + 1;
        left.note(&ann, "red".into(), later, later);
        assert_eq!(left.of(&ann).collect::<Vec<_>>(), [(&"red".into(), later)]);
        left.remove(&ann, "red");
        assert_eq!(left.users().count(), 0);
    }

    #[test]
    fn a_membership_left_again_keeps_the_last_time() {
        let (mut left, ann) = (LeftMemberships::default(), ann());
        left.note(&ann, "red".into(), 0, 0);
        left.note(&ann, "red".into(), LEFT_REMEMBERED_MS, LEFT_REMEMBERED_MS);
        left.note(&ann, "blue".into(), LEFT_REMEMBERED_MS + 1, LEFT_REMEMBERED_MS + 1);
        assert_eq!(left.at_ms(&ann, "red"), Some(LEFT_REMEMBERED_MS));
    }
}
