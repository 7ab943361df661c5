//! Rules for paths: negotiate paths, and private paths of the fleet.

use percent_encoding::percent_decode_str;
use trunkline_protocol::manifest::PRIVATE_PREFIX;

use crate::engine::upstream::decode_path;

pub(crate) const NEGOTIATE_SUFFIX: &str = "/negotiate";
pub(crate) const REFRESH_SUFFIX: &str = "/refresh";
const HISTORY_SUFFIX: &str = "/history";

/// Number of times a path is decoded: once for an app server, and once for an intermediary.
const DECODED_TIMES: usize = 2;

/// Returns the hub path of a negotiate path; its last segment may contain escapes.
pub(crate) fn split_negotiate(path: &str) -> Option<&str> {
    split_suffix(path, NEGOTIATE_SUFFIX)
}

/// Returns the hub path of an authentication refresh path.
pub(crate) fn split_refresh(path: &str) -> Option<&str> {
    split_suffix(path, REFRESH_SUFFIX)
}

/// Returns the hub path of a path for event streams of records.
pub(crate) fn split_history(path: &str) -> Option<&str> {
    split_suffix(path, HISTORY_SUFFIX)
}

fn split_suffix<'a>(path: &'a str, suffix: &str) -> Option<&'a str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (head, tail) = path.split_at(path.rfind('/')?);
    decode_path(tail).eq_ignore_ascii_case(suffix).then_some(head)
}

/// Whether a path is a fixed path of dial-in, with or without its last slash.
pub(crate) fn is_path(path: &str, wanted: &str) -> bool {
    decode_path(path).trim_end_matches('/').eq_ignore_ascii_case(wanted.trim_end_matches('/'))
}

/// Whether a path is one that app servers reserve for proxies, in any spelling that an app server might accept.
///
/// No client needs these paths, so matching is broad: escapes are decoded twice, empty and dot segments resolved,
/// parameters removed, and case ignored.
pub(crate) fn is_private(path: &str) -> bool {
    let own = PRIVATE_PREFIX.trim_matches('/');
    let path = decoded(path).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    segments.first().is_some_and(|first| first.eq_ignore_ascii_case(own))
}

fn decoded(path: &str) -> String {
    (0..DECODED_TIMES).fold(path.to_owned(), |path, _| percent_decode_str(&path).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_paths_are_known_in_any_spelling() {
        for path in [
            "/.trunkline/manifest",
            "/.TRUNKLINE/link",
            "/.trunkline",
            "//.trunkline//manifest",
            "/%2Etrunkline/manifest",
            "/.trunkline%2fmanifest",
            "/./.trunkline/x",
            "/pages/../.trunkline/x",
            "/pages/%2e%2e/.trunkline/x",
            "/../.trunkline/x",
            "/.trunkline;x=1/manifest",
            "/pages/..;x=1/.trunkline/manifest",
            "/;/.trunkline/manifest",
            "/%252Etrunkline/manifest",
            "/pages%2f..%2f.trunkline/x",
            "/%5c.trunkline/x",
        ] {
            assert!(is_private(path), "{path}");
        }
        for path in ["/", "/api", "/trunkline/x", "/.trunkliner", "/docs/.trunkline", "/.well-known/x", "*", ""] {
            assert!(!is_private(path), "{path}");
        }
    }

    #[test]
    fn a_negotiate_path_is_a_hub_path_with_a_tail_of_any_case() {
        assert_eq!(split_negotiate("/chat/negotiate"), Some("/chat"));
        assert_eq!(split_negotiate("/chat/Negotiate/"), Some("/chat"));
        assert_eq!(split_negotiate("/chat"), None);
        assert_eq!(split_negotiate("/negotiate"), Some(""));
        assert_eq!(split_negotiate("/x/negotiated"), None);
        assert_eq!(split_negotiate("/ü"), None);
        assert_eq!(split_negotiate("/b%65nch/n%65gotiate"), Some("/b%65nch"));
        assert_eq!(split_negotiate("/chat%2Fnegotiate"), None);
    }
}
