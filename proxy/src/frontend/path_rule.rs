//! Rules about paths: which negotiate, and which are the fleet's own.

use percent_encoding::percent_decode_str;
use trunkline_protocol::manifest::PRIVATE_PREFIX;

pub(crate) const NEGOTIATE_SUFFIX: &str = "/negotiate";

/// Returns the hub's path of a negotiate path.
pub(crate) fn split_negotiate(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (head, tail) = path.split_at_checked(path.len().checked_sub(NEGOTIATE_SUFFIX.len())?)?;
    tail.eq_ignore_ascii_case(NEGOTIATE_SUFFIX).then_some(head)
}

/// Whether a path leads to where app servers speak to proxies, in any spelling that an app server might take for it.
///
/// Nobody else has any business there, so doubt counts against the path: escapes are decoded, empty and dotted segments
/// resolved, case does not matter.
pub(crate) fn is_private(path: &str) -> bool {
    let own = PRIVATE_PREFIX.trim_matches('/');
    let path = percent_decode_str(path).decode_utf8_lossy().replace('\\', "/");
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    segments.first().is_some_and(|first| first.split(';').next().unwrap_or_default().eq_ignore_ascii_case(own))
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
    }
}
