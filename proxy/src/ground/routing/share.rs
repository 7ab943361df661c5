//! Share of users or connections: stable across nodes, restarts and versions.

use aws_lc_rs::digest::{Context, SHA256};

/// Number of possible 32-bit hash values.
const PLACES: f64 = 4_294_967_296.0;

/// Position of a user or connection between 0 and 1, evenly distributed.
///
/// From the first four bytes, big-endian, of SHA-256 over salt, line feed and key: nodes agree. The algorithm must
/// never change, or an update would give canaries other users. Different salts make canaries independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Share(f64);

impl Share {
    pub(crate) fn of(salt: &str, key: &str) -> Self {
        let mut hash = Context::new(&SHA256);
        [salt, "\n", key].iter().for_each(|part| hash.update(part.as_bytes()));
        let place = hash.finish().as_ref().first_chunk().map_or(0, |head| u32::from_be_bytes(*head));
        Self(f64::from(place) / PLACES)
    }

    #[must_use]
    pub(crate) fn of_whole(self, whole: f64) -> f64 {
        self.0 * whole
    }

    /// Whether the position is in the first `part`, from 0 for none to 1 for all. Larger parts include smaller ones.
    #[must_use]
    pub(crate) fn is_in_first(self, part: f64) -> bool {
        self.0 < part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> impl Iterator<Item = String> {
        (0..10_000).map(|number| format!("user-{number}"))
    }

    fn number_in(salt: &str, part: f64) -> usize {
        users().filter(|user| Share::of(salt, user).is_in_first(part)).count()
    }

    #[test]
    fn places_never_change() {
        let places = ["ann", "bob", ""].map(|user| Share::of("canary", user).of_whole(PLACES));
        assert_eq!(places, [4_005_258_195.0, 323_629_968.0, 946_009_398.0]);
    }

    #[test]
    fn of_10_000_users_a_part_is_in_within_one_percent() {
        for salt in ["canary", "beta", "reject"] {
            for (part, expected) in [(0.0, 0), (0.1, 1000), (0.25, 2500), (0.5, 5000), (0.999, 9990), (1.0, 10_000)] {
                let found = number_in(salt, part);
                assert!(found.abs_diff(expected) <= 100, "{salt} {part}: {found}");
            }
        }
        assert_eq!((number_in("canary", 0.0), number_in("canary", 1.0)), (0, 10_000));
    }

    #[test]
    fn a_key_in_a_part_is_also_in_every_larger_part() {
        for user in users() {
            let share = Share::of("canary", &user);
            assert!(!share.is_in_first(0.1) || share.is_in_first(0.2), "{user}");
        }
    }

    #[test]
    fn two_salts_are_independent() {
        let both = |user: &String| ["one", "two"].iter().all(|salt| Share::of(salt, user).is_in_first(0.5));
        assert!(users().filter(both).count().abs_diff(2500) <= 100);
    }
}
