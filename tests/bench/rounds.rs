//! Order of the parts of a round.
//!
//! The order rotates, so that no part always comes first, when the machine may have been idle.

/// All parts in the order of this round; rounds count from 1.
pub fn in_turn<P: Copy, const N: usize>(parts: [P; N], round: u32) -> impl Iterator<Item = P> {
    let first = (round as usize).saturating_sub(1) % N.max(1);
    parts.into_iter().cycle().skip(first).take(N)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_comes_first_in_its_turn() {
        let firsts: Vec<char> = (1..=4).filter_map(|round| in_turn(['a', 'b', 'c'], round).next()).collect();
        assert_eq!(firsts, ['a', 'b', 'c', 'a']);
        assert_eq!(in_turn(['a', 'b', 'c'], 2).collect::<String>(), "bca");
    }
}
