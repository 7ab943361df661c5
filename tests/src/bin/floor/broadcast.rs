//! The bytes of a broadcast: what asks for it, and what every client is to get.

/// What every client is to get of the broadcast of this number.
pub(crate) fn message(sequence: u64, payload: usize) -> Vec<u8> {
    format!("{{\"type\":1,\"target\":\"Message\",\"arguments\":[\"{}\"]}}\x1e", text(sequence, payload)).into_bytes()
}

/// The call that asks the app server for it. Without an id: there is no answer.
pub(crate) fn call(sequence: u64, payload: usize) -> Vec<u8> {
    format!("{{\"type\":1,\"target\":\"Broadcast\",\"arguments\":[\"{}\"]}}\x1e", text(sequence, payload)).into_bytes()
}

fn text(sequence: u64, payload: usize) -> String {
    format!("{sequence:x<payload$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_length_that_was_asked_for_and_tells_its_number() {
        for payload in [16, 128, 16_384] {
            assert_eq!(text(u64::MAX >> 12, payload).len(), payload);
        }
        assert_eq!(text(7, 16), "7xxxxxxxxxxxxxxx");
    }
}
