//! Possible readings of a request path by app servers behind this node.
//!
//! Servers may use the path unchanged, resolve dots and empty segments, treat a backslash as a slash, or decode escapes
//! again. A route considers all readings and decides how to treat ambiguity.

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

#[cfg(test)]
mod tests {
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
}
