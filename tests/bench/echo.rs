//! Encoded `Echo` calls and answers, with a unique text per client and call.

/// Call with this number from this client.
#[must_use]
pub fn call(client: usize, sequence: u64, payload: usize) -> Vec<u8> {
    let text = text(client, sequence, payload);
    format!("{{\"type\":1,\"invocationId\":\"{sequence}\",\"target\":\"Echo\",\"arguments\":[\"{text}\"]}}\x1e")
        .into_bytes()
}

/// Expected answer to that call.
#[must_use]
pub fn answer(client: usize, sequence: u64, payload: usize) -> Vec<u8> {
    let text = text(client, sequence, payload);
    format!("{{\"type\":3,\"invocationId\":\"{sequence}\",\"result\":\"{text}\"}}\x1e").into_bytes()
}

fn text(client: usize, sequence: u64, payload: usize) -> String {
    format!("{:x<payload$}", format_args!("{client:x}-{sequence:x}").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_the_requested_length_and_names_its_client() {
        for payload in [24, 128, 4_096] {
            assert_eq!(text(8_999, u64::MAX >> 12, payload).len(), payload);
        }
        assert_eq!(text(10, 17, 24), "a-11xxxxxxxxxxxxxxxxxxxx");
    }
}
