//! Possible readings of a request path by app servers behind this node.
//!
//! Servers may use the path unchanged, resolve dots and empty segments, treat a backslash as a slash, or decode escapes
//! again. A route considers all readings and decides how to treat ambiguity. Methods and paths are compared without
//! regard to case.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The route matches if any reading matches, as for rejections.
    Holds,
    /// The route matches only if all readings match.
    Fails,
}

/// Distinct readings of a path, usually one.
#[derive(Debug)]
pub(super) struct PathReadings(Vec<String>);

impl PathReadings {
    pub(super) fn of(path: &str) -> Self {
        let once = decoded(path);
        if !["%", "\\", "//", "/."].iter().any(|odd| path.contains(odd)) {
            return Self(vec![once]);
        }
        let (plain, twice) = (resolved(&once), resolved(&decoded(&once)));
        let mut readings = vec![once];
        for reading in [plain, twice] {
            if !readings.contains(&reading) {
                readings.push(reading);
            }
        }
        Self(readings)
    }

    /// Whether the readings match, with this treatment of ambiguity.
    pub(super) fn match_by(&self, doubt: Doubt, matches: impl Fn(&str) -> bool) -> bool {
        match doubt {
            Doubt::Holds => self.0.iter().any(|reading| matches(reading)),
            Doubt::Fails => self.0.iter().all(|reading| matches(reading)),
        }
    }
}

fn decoded(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// Path without empty and dot segments, with slashes instead of backslashes.
fn resolved(path: &str) -> String {
    let path = path.replace('\\', "/");
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let last = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{last}", segments.join("/"))
}

/// Folds a name so that names differing only in case become equal.
///
/// The SDK compares methods by lower case, ASP.NET Core by upper case. Names equal under either must be equal here, or
/// a denied method could be called by another spelling, such as with the Kelvin sign for `k`. So the name is converted
/// to lower, upper and again lower case.
pub(crate) fn fold(name: &str) -> Cow<'_, str> {
    if !name.is_ascii() {
        let upper = name.chars().flat_map(char::to_lowercase).flat_map(char::to_uppercase);
        return upper.flat_map(char::to_lowercase).collect::<String>().into();
    }
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_reading_unless_servers_may_differ_about_it() {
        for (path, readings) in [
            ("/admin/x", vec!["/admin/x"]),
            ("/", vec!["/"]),
            ("*", vec!["*"]),
            ("/%61dmin/", vec!["/admin/"]),
            ("/.well-known/x", vec!["/.well-known/x"]),
            ("//admin", vec!["//admin", "/admin"]),
            ("/x/../admin/.", vec!["/x/../admin/.", "/admin"]),
            ("/../../", vec!["/../../", "/"]),
            ("/%2e/admin", vec!["/./admin", "/admin"]),
            ("/\\admin", vec!["/\\admin", "/admin"]),
            ("/x%252f..%252fadmin", vec!["/x%2f..%2fadmin", "/admin"]),
        ] {
            assert_eq!(PathReadings::of(path).0, readings, "{path}");
        }
    }

    #[test]
    fn spellings_that_an_app_server_takes_for_one_name_are_one() {
        for (one, other) in [
            ("Kill", "kILL"),
            ("kill", "\u{212A}ill"),
            ("straße", "STRASSE"),
            ("straße", "STRA\u{1E9E}E"),
            ("ὈΔΟΣ", "ὀδος"),
            ("µ", "μ"),
            ("\u{17F}ay", "Say"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(fold("Say"), fold("Says"));
    }

    #[test]
    fn a_name_in_lower_case_is_not_copied() {
        assert!(matches!(fold("say-it_1"), Cow::Borrowed("say-it_1")));
    }

    proptest! {
        #[test]
        fn names_with_one_lower_case_form_are_one(name in "\\PC{0,12}") {
            let lower = name.to_lowercase();
            prop_assert_eq!(fold(&name), fold(&lower));
        }
    }
}
