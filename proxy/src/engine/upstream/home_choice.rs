//! Choice of the home link for a new client connection.
//!
//! Pure. Round robin, because always choosing the emptiest link would flood one that has just reopened. Scanning a
//! small pool is cheap.

/// First usable slot, cyclically from the slot whose turn it is; `None` if all are unusable. A turn covers several
/// consecutive clients: only messages on one link share a write, a read and a wake-up, which matters most with few
/// clients. Many are distributed evenly anyway.
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
