//! Choose the home link of a new client connection.
//!
//! Pure: given which links are open and not full, return one. Round robin: a pool is small, so a scan is cheap,
//! and always taking the emptiest would flood a link that just came back.

/// Clients that get one link in a row. Messages that come close together share a write, a read and a wake-up only if they
/// share a link, and the fewer clients there are the less their messages do. Many clients are spread evenly all the same.
pub(crate) const CLIENTS_PER_TURN: usize = 64;

/// The first usable slot, around the end, from that whose turn it is for this client of a pool; `None` when there is none.
pub(super) fn choose(usable: &[bool], client: usize) -> Option<usize> {
    let (count, start) = (usable.len(), client / CLIENTS_PER_TURN);
    (0..count).map(|step| (start + step) % count).find(|&slot| usable.get(slot).copied().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_turns_while_all_are_usable() {
        let slots: Vec<_> = (0..7).map(|turn| choose(&[true; 3], turn * CLIENTS_PER_TURN).unwrap()).collect();
        assert_eq!(slots, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn few_clients_share_a_link() {
        assert!((0..CLIENTS_PER_TURN).all(|client| choose(&[true; 3], client) == Some(0)));
        assert_eq!(choose(&[true; 3], CLIENTS_PER_TURN), Some(1));
    }

    #[test]
    fn skips_links_that_are_down_or_full() {
        assert_eq!(choose(&[false, false, true], 0), Some(2));
        assert_eq!(choose(&[true, false, false], CLIENTS_PER_TURN), Some(0));
    }

    #[test]
    fn without_links_there_is_no_home() {
        assert_eq!(choose(&[], 0), None);
        assert_eq!(choose(&[false, false], 5 * CLIENTS_PER_TURN), None);
    }
}
