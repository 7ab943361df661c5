//! Mutations of an input: bit flips, cuts, repetitions, splices with other seeds, and bytes at which parsers branch.

use crate::random::Random;

/// Maximum length of a mutated input.
pub const INPUT_MAX_BYTES: usize = 64 * 1024;

const MUTATIONS_MAX: usize = 6;

/// Maximum number of bytes that are repeated or removed.
const RUN_MAX_BYTES: usize = 64;

/// Bytes and texts at which parsers branch.
const TOKENS: &[&[u8]] = &[
    b"\x00",
    b"\x01",
    b"\x1e",
    b"\x7f",
    b"\x80",
    b"\x81",
    b"\x90",
    b"\x91",
    b"\xc0",
    b"\xc2",
    b"\xc3",
    b"\xc4",
    b"\xcf",
    b"\xd9",
    b"\xdc",
    b"\xdd",
    b"\xdf",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x07",
    b"\xf0\x9f\x98\x80",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b";",
    b"=",
    b"&",
    b"%",
    b"%00",
    b"+",
    b" ",
    b"\t",
    b"\r\n",
    b"/",
    b"?",
    b"#",
    b"@",
    b"*",
    b".",
    b"-",
    b"null",
    b"true",
    b"1e400",
    b"-1",
    b"0",
    b"18446744073709551616",
    b"type",
    b"invocationId",
    b"127.0.0.1",
    b"[::1]",
    b"for=",
    b"Bearer ",
    b"\n",
];

/// Returns a mutation of `seed`, which may be spliced with `others`.
#[must_use]
pub fn mutate(seed: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(MUTATIONS_MAX) {
        mutate_once(&mut bytes, others, random);
    }
    bytes.truncate(INPUT_MAX_BYTES);
    bytes
}

fn mutate_once(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    let run = at..(at + 1 + random.below(RUN_MAX_BYTES)).min(bytes.len());
    match random.below(9) {
        0 => set(bytes, at, |byte, random| byte ^ (1 << random.below(8)), random),
        1 => set(bytes, at, |_, random| random.byte(), random),
        2 => set(bytes, at, |byte, _| byte.wrapping_add(1), random),
        3 => set(bytes, at, |byte, _| byte.wrapping_sub(1), random),
        4 => bytes.truncate(at),
        5 if !run.is_empty() => drop(bytes.drain(run)),
        6 => {
            let copy = bytes.get(run).unwrap_or_default().to_vec();
            insert(bytes, at, &copy);
        }
        7 => {
            let other = random.pick(others).map(Vec::as_slice).unwrap_or_default();
            let tail = other.get(random.below(other.len())..).unwrap_or_default();
            bytes.truncate(at);
            bytes.extend_from_slice(tail);
        }
        _ => insert(bytes, at, random.pick(TOKENS).copied().unwrap_or_default()),
    }
}

fn set(bytes: &mut [u8], at: usize, change: impl FnOnce(u8, &mut Random) -> u8, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = change(*byte, random);
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, inserted: &[u8]) {
    bytes.splice(at..at, inserted.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_of_a_seed_differ_and_can_be_repeated() {
        let run = || {
            let mut random = Random::new(1);
            (0..100).map(|_| mutate(b"{\"type\":6}", &[b"other".to_vec()], &mut random)).collect::<Vec<_>>()
        };
        let mut mutations = run();
        assert_eq!(mutations, run());
        mutations.sort();
        mutations.dedup();
        assert!(mutations.len() > 60, "{}", mutations.len());
    }

    #[test]
    fn an_empty_seed_can_be_mutated() {
        let mut random = Random::new(1);
        assert!((0..100).any(|_| !mutate(b"", &[], &mut random).is_empty()));
    }
}
