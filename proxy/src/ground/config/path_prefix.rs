//! Path prefix that a load balancer adds, stripped before paths are matched.

use std::sync::Arc;

/// Error of parsing a path prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a path like /realtime, with a leading slash and neither '?' nor '#'")]
pub struct PathPrefixError {
    /// Rejected text of the prefix.
    pub value: String,
}

/// Prefix stripped from request paths; none by default.
#[derive(Debug, Clone, Default)]
pub struct PathPrefix(Option<Arc<str>>);

impl PathPrefix {
    /// Checks a prefix. A trailing slash is ignored.
    ///
    /// # Errors
    /// If the text is not a path.
    pub fn new(text: &str) -> Result<Self, PathPrefixError> {
        let is_path =
            text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !is_path {
            return Err(PathPrefixError { value: text.into() });
        }
        let text = text.trim_end_matches('/');
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }

    /// Returns the path after the prefix, or `None` if the path does not start with the prefix. Case-insensitive, like
    /// hub paths.
    #[must_use]
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let prefix = self.0.as_deref()?;
        let (head, rest) = path.split_at_checked(prefix.len())?;
        match (head.eq_ignore_ascii_case(prefix), rest) {
            (true, "") => Some("/"),
            (true, rest) if rest.starts_with('/') => Some(rest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_are_stripped() {
        let prefix = PathPrefix::new("/realtime/").unwrap();
        assert_eq!(prefix.strip("/realtime/chat"), Some("/chat"));
        assert_eq!(prefix.strip("/RealTime"), Some("/"));
        for path in ["/realtimes/chat", "/chat", "/chat/realtime", "/"] {
            assert_eq!(prefix.strip(path), None, "{path}");
        }
        assert_eq!(PathPrefix::default().strip("/chat"), None);
        assert_eq!(PathPrefix::new("/").unwrap().strip("/chat"), None);
    }

    #[test]
    fn a_text_that_is_no_path_is_refused_with_its_value() {
        for text in ["realtime", "/a?b", "/a b", ""] {
            let problem = PathPrefix::new(text).unwrap_err().to_string();
            assert!(problem.starts_with(&format!("{text:?} is not a path")), "{problem}");
        }
    }
}
