//! Negotiation of compression (permessage-deflate, RFC 7692, 7.1). Pure.
//!
//! Accepted only without contexts, so that a compressed frame is the same for all clients and neither end keeps data
//! between messages. A client can't refuse this: it has offered to decompress any window of up to 32 KiB.

use http::HeaderMap;
use http::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

const NAME: &str = "permessage-deflate";

/// Bits of the window of each sent message.
const WINDOW_BITS: &str = "15";

const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const ACCEPTED_WITH_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

/// Returns the answer to a client's first offer that can be accepted; `None` without one.
pub(crate) fn accepted_compression(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let accepted = offers.flat_map(|value| value.split(',')).find_map(accepted)?;
    Some(HeaderValue::from_static(accepted))
}

/// Answer to one offer. Unknown, repeated and malformed parameters decline it.
fn accepted(offer: &str) -> Option<&'static str> {
    let mut parameters = offer.split(';').map(str::trim);
    if !parameters.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let (mut seen, mut answer) = (Vec::new(), ACCEPTED);
    for parameter in parameters {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
            None => (parameter, None),
        };
        let name = name.to_ascii_lowercase();
        match (name.as_str(), value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some("8" | "9" | "10" | "11" | "12" | "13" | "14" | WINDOW_BITS)) => {}
            ("server_max_window_bits", Some(WINDOW_BITS)) => answer = ACCEPTED_WITH_WINDOW,
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(answer)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(values: &[&str]) -> Option<String> {
        let headers = values.iter().map(|value| (SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap())).collect();
        accepted_compression(&headers).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn offers_are_accepted_without_contexts() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "Permessage-Deflate;client_max_window_bits=8",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits=\"12\"",
            "x-webkit-deflate-frame, permessage-deflate",
        ] {
            assert_eq!(accept(&[offer]).as_deref(), Some(ACCEPTED), "{offer}");
        }
        assert_eq!(accept(&["x", "permessage-deflate"]).as_deref(), Some(ACCEPTED), "in another header");
    }

    #[test]
    fn a_full_window_is_confirmed_and_a_smaller_one_is_declined() {
        let full = "permessage-deflate; server_max_window_bits=15";
        assert_eq!(accept(&[full]).as_deref(), Some(ACCEPTED_WITH_WINDOW));
        assert_eq!(accept(&["permessage-deflate; server_max_window_bits=10"]), None);
        let alternatives = "permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(accept(&[alternatives]).as_deref(), Some(ACCEPTED), "the next offer");
    }

    #[test]
    fn other_offers_are_declined() {
        for offer in [
            "",
            "permessage-bzip2",
            "permessage-deflate-x",
            "permessage-deflate; unknown",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=015",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; CLIENT_MAX_WINDOW_BITS=10",
            "permessage-deflate;",
        ] {
            assert_eq!(accept(&[offer]), None, "{offer}");
        }
        assert_eq!(accept(&[]), None);
    }
}
