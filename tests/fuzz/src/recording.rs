//! Recordings of traffic, which may come from strangers.

use trunkline_command::fuzzing;

/// Reads a recording to its end; the result must survive a round trip.
pub fn recordings(data: &[u8]) {
    match fuzzing::recording(data) {
        Ok(written) => {
            let again = fuzzing::recording(written.as_bytes()).expect("what was written can be read");
            assert_eq!(again, written, "a line is written in another way than it was read");
        }
        Err(problem) => assert!(!problem.is_empty(), "a file is refused without a reason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_to_their_end() {
        for (seed, lines) in [
            (&include_bytes!("../corpus/recordings/chat.jsonl")[..], 8),
            (&include_bytes!("../corpus/recordings/raw.jsonl")[..], 5),
        ] {
            assert_eq!(fuzzing::recording(seed).map(|text| text.lines().count()), Ok(lines));
        }
        assert!(fuzzing::recording(include_bytes!("../corpus/recordings/without_payloads.jsonl")).is_err());
    }
}
