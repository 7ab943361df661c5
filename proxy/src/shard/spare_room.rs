//! Spare room: memory that tables have grown to in a storm, and that they give back when it is over.

use std::collections::VecDeque;

use slab::Slab;

/// Number of places that a table keeps, however few it has in use.
const KEPT_PLACES: usize = 1024;

/// Gives back the room of a queue of which less than a quarter is in use.
pub(super) fn give_back<T>(queue: &mut VecDeque<T>) {
    if is_spare(queue.len(), queue.capacity()) {
        queue.shrink_to(2 * queue.len());
    }
}

/// Gives back the room of a slab of which less than a quarter is in use, as far as nothing stands behind it.
pub(super) fn give_back_slab<T>(slab: &mut Slab<T>) {
    if is_spare(slab.len(), slab.capacity()) {
        slab.shrink_to_fit();
    }
}

fn is_spare(used: usize, capacity: usize) -> bool {
    capacity > KEPT_PLACES && used < capacity / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_nearly_empty_gives_its_room_back() {
        let mut queue: VecDeque<u64> = (0..100_000).collect();
        give_back(&mut queue);
        assert!(queue.capacity() >= 100_000);
        queue.truncate(10);
        give_back(&mut queue);
        assert!(queue.capacity() <= KEPT_PLACES);
        assert!(queue.iter().copied().eq(0..10));
    }

    #[test]
    fn a_slab_gives_back_the_room_behind_its_last_entry() {
        let mut slab = Slab::new();
        let keys: Vec<usize> = (0..100_000).map(|number| slab.insert(number)).collect();
        keys.iter().filter(|key| **key != 5).for_each(|key| {
            slab.remove(*key);
        });
        give_back_slab(&mut slab);
        assert!(slab.capacity() <= KEPT_PLACES);
        assert_eq!(slab.get(5), Some(&5));
    }
}
