//! Choose the home link of a new client connection.
//!
//! Pure: given which links are open and not full, return one. Round robin: a pool is small, so a scan is cheap,
//! and always taking the emptiest would flood a link that just came back.

/// The first usable slot, around the end, from that whose turn it is when this client of a pool comes; `None` when
/// there is none. A turn is some clients long: messages that come close together share a write, a read and a wake-up
/// only if they share a link, and the fewer clients there are the less their messages do. Many are spread evenly all
/// the same.
pub(super) fn choose(usable: &[bool], client: usize, turn: usize) -> Option<usize> {
    let (count, start) = (usable.len(), client / turn.max(1));
    (0..count).map(|step| (start + step) % count).find(|&slot| usable.get(slot).copied().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_turns_while_all_are_usable() {
        let slots: Vec<_> = (0..7).map(|client| choose(&[true; 3], client, 1).unwrap()).collect();
        assert_eq!(slots, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn clients_of_one_turn_share_a_link() {
        let slots: Vec<_> = (0..7).map(|client| choose(&[true; 3], client, 2).unwrap()).collect();
        assert_eq!(slots, [0, 0, 1, 1, 2, 2, 0]);
    }

    #[test]
    fn skips_links_that_are_down_or_full() {
        assert_eq!(choose(&[false, false, true], 0, 1), Some(2));
        assert_eq!(choose(&[true, false, false], 1, 1), Some(0));
    }

    #[test]
    fn without_links_there_is_no_home() {
        assert_eq!(choose(&[], 0, 1), None);
        assert_eq!(choose(&[false, false], 5, 1), None);
    }
}
