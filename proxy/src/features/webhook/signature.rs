//! Request signatures, which prove to a back end that a request comes from a holder of its secret.
//!
//! Azure's signature covers only the connection id, so an observer could forge further events. Ours covers the time,
//! headers and body.

use aws_lc_rs::hmac;
use http::HeaderMap;
use http::header::HeaderName;
use trunkline_protocol::key::AccessKey;

/// Signs a text with each key, so that a back end with any of them can verify it.
pub(super) fn signatures(keys: &[AccessKey], text: &[u8]) -> String {
    let all: Vec<_> = keys.iter().map(|key| signature(key, text)).collect();
    all.join(",")
}

/// Signs a request at a time: the time, these headers' values and the body, separated by line feeds.
pub(super) fn signed_request(
    keys: &[AccessKey],
    now_s: u64,
    (head, names): (&HeaderMap, &[HeaderName]),
    body: &[u8],
) -> String {
    let mut text = now_s.to_string().into_bytes();
    for name in names {
        let values: Vec<_> = head.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        text.push(b'\n');
        // Joined the way recipients join repeated headers.
        text.extend(values.join(b", ".as_slice()));
    }
    text.push(b'\n');
    text.extend(body);
    format!("t={now_s},{}", signatures(keys, &text))
}

fn signature(key: &AccessKey, text: &[u8]) -> String {
    let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()), text);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn keys() -> [AccessKey; 2] {
        ["the first key of them", "the second key of them"].map(|key| AccessKey::new(key).unwrap())
    }

    #[test]
    fn each_key_signs_as_other_tools_do() {
        // From `printf connection-1 | openssl dgst -sha256 -hmac KEY`.
        let expected = "sha256=e5a08efedc68c522be1d3271fe2f8475fcd4e4d0ca14527c548fb1442f9dd9cb,\
                        sha256=0c4574f4bfcd173823033972e74eb4df4afe9a8f876533e653800a4423f2ffb4";
        assert_eq!(signatures(&keys(), b"connection-1"), expected);
    }

    #[test]
    fn a_request_is_signed_with_its_time_its_headers_and_its_body() {
        let names = ["x-id", "x-claim", "x-none"].map(HeaderName::from_static);
        let mut head = HeaderMap::new();
        head.insert("x-id", HeaderValue::from_static("connection-1"));
        head.append("x-claim", HeaderValue::from_static("role: a"));
        head.append("x-claim", HeaderValue::from_static("role: b"));
        let [key, _] = keys();
        let signed = signed_request(std::slice::from_ref(&key), 1_700_000_000, (&head, &names), b"{}");
        let text = b"1700000000\nconnection-1\nrole: a, role: b\n\n{}";
        assert_eq!(signed, format!("t=1700000000,{}", signatures(&[key], text)));
    }
}
