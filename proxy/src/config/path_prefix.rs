//! The path that a load balancer puts in front of all paths, and that is taken off before they are matched.

use std::sync::Arc;

/// What of this is typed.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PathPrefixArgs {
    /// What a load balancer puts in front of every path, such as `/realtime`: it is taken off before paths are matched.
    /// Paths without it are served too.
    #[arg(long, env = "TRUNKLINE_PATH_PREFIX", value_name = "PATH")]
    pub path_prefix: Option<String>,
}

#[cfg(feature = "cli")]
impl PathPrefixArgs {
    /// Checks what was typed.
    ///
    /// # Errors
    /// When it is no path.
    pub fn check(&self) -> Result<PathPrefix, PathPrefixError> {
        let given = self.path_prefix.as_deref().filter(|text| !text.is_empty());
        given.map_or(Ok(PathPrefix::default()), PathPrefix::new)
    }
}

/// A path prefix is none.
#[derive(Debug, thiserror::Error)]
#[error("--path-prefix {value:?} is no path like /realtime, with a slash in front and neither '?' nor '#'")]
pub struct PathPrefixError {
    /// What was given.
    pub value: String,
}

/// What is taken off paths; nothing unless told otherwise.
#[derive(Debug, Clone, Default)]
pub struct PathPrefix(Option<Arc<str>>);

impl PathPrefix {
    /// A prefix; a slash at its end does not count.
    ///
    /// # Errors
    /// When it is no path.
    pub fn new(text: &str) -> Result<Self, PathPrefixError> {
        let is_path =
            text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !is_path {
            return Err(PathPrefixError { value: text.into() });
        }
        let text = text.trim_end_matches('/');
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }

    /// The path behind the prefix; `None` when the prefix is not in front of it. Matched as the paths of hubs are,
    /// without regard to case.
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
    fn whole_segments_are_taken_off_and_nothing_else() {
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
    fn what_is_no_path_is_named() {
        for text in ["realtime", "/a?b", "/a b", ""] {
            let problem = PathPrefix::new(text).unwrap_err().to_string();
            assert!(problem.starts_with(&format!("--path-prefix {text:?}")), "{problem}");
        }
    }
}
