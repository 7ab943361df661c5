//! Choice of the app server that reports a presence change to its app.

use std::hash::Hasher;

use fnv::FnvHasher;

/// Chooses an instance for a user or group by the highest hash of both (rendezvous hashing): when other instances start
/// or stop, the remaining ones keep their assignments.
///
/// App servers of different versions must agree, so this never changes.
#[must_use]
pub fn presence_owner<T: AsRef<str>>(instances: &[T], name: &str) -> Option<usize> {
    let weights = instances.iter().map(|instance| (presence_weight(instance.as_ref(), name), instance.as_ref()));
    weights.enumerate().max_by_key(|(_, weight)| *weight).map(|(owner, _)| owner)
}

/// Weight of an instance for a name: a hash of both, evenly distributed over 64 bits.
#[must_use]
pub fn presence_weight(instance: &str, name: &str) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(instance.as_bytes());
    hasher.write(&[0xff]);
    hasher.write(name.as_bytes());
    // The last bytes hardly affect the highest bits, which decide. MurmurHash3's final mix spreads them.
    let mut hash = hasher.finish();
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distributed_evenly_for_any_order_of_instances() {
        let (instances, turned) = (["one", "two", "three"], ["three", "one", "two"]);
        let mut owned = [0; 3];
        for number in 0..3000 {
            let name = format!("user-{number}");
            let owner = presence_owner(&instances, &name).unwrap();
            assert_eq!(turned[presence_owner(&turned, &name).unwrap()], instances[owner]);
            owned[owner] += 1;
        }
        assert!(owned.iter().all(|&owned| (850..1150).contains(&owned)), "{owned:?}");
        assert_eq!(presence_owner::<&str>(&[], "ann"), None);
    }

    #[test]
    fn only_the_names_of_a_leaving_instance_are_reassigned() {
        for number in 0..1000 {
            let name = format!("user-{number}");
            let before = ["one", "two", "three"][presence_owner(&["one", "two", "three"], &name).unwrap()];
            let after = ["one", "two"][presence_owner(&["one", "two"], &name).unwrap()];
            assert!(before == after || before == "three", "{name} went from {before} to {after}");
        }
    }

    /// If the choice changed, two versions of an app would report changes twice or never.
    #[test]
    fn the_choice_never_changes() {
        let owners: Vec<_> =
            ["ann", "bob", "cid", "dan"].iter().map(|name| presence_owner(&["a", "b", "c"], name)).collect();
        assert_eq!(owners, [Some(2), Some(0), Some(2), Some(1)]);
    }
}
