//! Paths of the fleet's own, in every spelling that an app server might take for them.

use percent_encoding::percent_decode_str;
use trunkline_protocol::manifest::PRIVATE_PREFIX;

/// Whether a path leads to where app servers speak to proxies. Nobody else has any business there, so doubt counts
/// against the path: escapes are decoded, empty and dotted segments resolved, case does not matter.
pub(in crate::frontend) fn is_private(path: &str) -> bool {
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
    fn no_spelling_leads_to_the_fleets_own_paths() {
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
}
