//! Signature of a request: proof for a back end that it comes from a holder of the access key.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use trunkline_protocol::key::{AccessKey, AccessKeys};

/// Signs the id of a connection with each key: a back end that has any of them finds its own among these.
#[must_use]
pub(super) fn signatures(keys: &AccessKeys, connection_id: &str) -> String {
    let all: Vec<_> = keys.iter().map(|key| signature(key, connection_id)).collect();
    all.join(",")
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn signature(key: &AccessKey, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).expect("a key of any length will do");
    mac.update(text.as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_signs_as_other_tools_do() {
        let keys = ["the first key of them", "the second key of them"].map(|key| AccessKey::new(key).unwrap());
        let keys = AccessKeys::new(keys.into()).unwrap();
        // By `printf connection-1 | openssl dgst -sha256 -hmac KEY`.
        let expected = "sha256=e5a08efedc68c522be1d3271fe2f8475fcd4e4d0ca14527c548fb1442f9dd9cb,\
                        sha256=0c4574f4bfcd173823033972e74eb4df4afe9a8f876533e653800a4423f2ffb4";
        assert_eq!(signatures(&keys, "connection-1"), expected);
    }
}
