//! Sealed tokens: connection tokens, and marks of forwarded requests.

use std::sync::LazyLock;

use trunkline_protocol::key::{AccessKey, AccessKeys, Purpose};
use trunkline_protocol::limits::TOKEN_MAX_CHARS;
use trunkline_protocol::token::{ConnectionToken, ForwardMark};

const KEY: &str = "the access key of the fuzz targets";

const METHOD: &str = "GET";
const TARGET: &str = "/chat?id=1";

/// Fleet keys for the seeds.
pub(crate) static KEYS: LazyLock<AccessKeys> = LazyLock::new(|| {
    AccessKeys::new(vec![AccessKey::new(KEY).expect("the key is long enough")]).expect("there is a key")
});

/// Opens tokens: reads the data both as sealed text and as sealed contents.
pub fn sealed_tokens(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        text.lines().chain([text]).for_each(open);
    }
    for purpose in [Purpose::ConnectionToken, Purpose::ForwardMark] {
        let sealed = KEYS.seal(purpose, data);
        if sealed.len() <= TOKEN_MAX_CHARS {
            assert_eq!(KEYS.open(purpose, &sealed).as_deref(), Ok(data), "a sealed value opens again");
        }
        open(&sealed);
    }
}

/// Opens a token; if this succeeds, it must survive sealing and opening again.
fn open(sealed: &str) {
    if let Ok(token) = ConnectionToken::open(sealed, &KEYS) {
        assert!(sealed.len() <= TOKEN_MAX_CHARS, "a token over the limit is opened");
        let again = token.seal(&KEYS);
        if again.len() <= TOKEN_MAX_CHARS {
            assert_eq!(ConnectionToken::open(&again, &KEYS), Ok(token));
        }
    }
    if let Ok(mark) = ForwardMark::open(sealed, &KEYS, METHOD, TARGET, 0) {
        let again = mark.seal(&KEYS);
        if again.len() <= TOKEN_MAX_CHARS {
            assert!(ForwardMark::open(&again, &KEYS, "POST", TARGET, 0).is_err(), "a mark is good for another request");
            assert_eq!(ForwardMark::open(&again, &KEYS, METHOD, TARGET, 0), Ok(mark));
        }
    }
}
