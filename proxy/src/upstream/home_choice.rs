//! Choose the home link of a new client connection.
//!
//! Pure: given which links are open and not full, return one. Round robin: a pool is small, so a scan is cheap,
//! and always taking the emptiest would flood a link that just came back.

/// The first usable slot at or after `start`, around the end; `None` when there is none.
pub(super) fn choose(usable: &[bool], start: usize) -> Option<usize> {
    let count = usable.len();
    (0..count).map(|step| (start + step) % count).find(|&slot| usable.get(slot).copied().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_turns_while_all_are_usable() {
        let slots: Vec<_> = (0..7).map(|start| choose(&[true; 3], start).unwrap()).collect();
        assert_eq!(slots, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn skips_links_that_are_down_or_full() {
        assert_eq!(choose(&[false, false, true], 0), Some(2));
        assert_eq!(choose(&[true, false, false], 1), Some(0));
    }

    #[test]
    fn without_links_there_is_no_home() {
        assert_eq!(choose(&[], 0), None);
        assert_eq!(choose(&[false, false], 5), None);
    }
}
