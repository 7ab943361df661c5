//! Release of memory that tables allocated under load.

use std::collections::VecDeque;

use slab::Slab;

/// Number of entries for which a table always keeps memory.
const KEPT_ENTRIES: usize = 1024;

/// Shrinks a queue when less than a quarter of its capacity is in use.
pub(crate) fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if is_spare(queue.len(), queue.capacity()) {
        queue.shrink_to(2 * queue.len());
    }
}

/// Shrinks a slab, down to its last entry, when less than a quarter of its capacity is in use.
pub(crate) fn shrink_slab<T>(slab: &mut Slab<T>) {
    if is_spare(slab.len(), slab.capacity()) {
        slab.shrink_to_fit();
    }
}

fn is_spare(used: usize, capacity: usize) -> bool {
    capacity > KEPT_ENTRIES && used < capacity / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_nearly_empty_shrinks() {
        let mut queue: VecDeque<u64> = (0..100_000).collect();
        shrink_queue(&mut queue);
        assert!(queue.capacity() >= 100_000);
        queue.truncate(10);
        shrink_queue(&mut queue);
        assert!(queue.capacity() <= KEPT_ENTRIES);
        assert!(queue.iter().copied().eq(0..10));
    }

    #[test]
    fn a_slab_shrinks_to_its_last_entry() {
        let mut slab = Slab::new();
        let keys: Vec<usize> = (0..100_000).map(|number| slab.insert(number)).collect();
        keys.iter().filter(|key| **key != 5).for_each(|key| {
            slab.remove(*key);
        });
        shrink_slab(&mut slab);
        assert!(slab.capacity() <= KEPT_ENTRIES);
        assert_eq!(slab.get(5), Some(&5));
    }
}
