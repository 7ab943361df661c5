//! Readings of a request's path: what the app servers behind this node may take it for.
//!
//! Some servers look at the path as it was sent, others resolve dots and empty segments, take a backslash for a slash,
//! or decode escapes once more. A route can't know which, so it knows all readings, and decides what a doubt counts as.

use percent_encoding::percent_decode_str;

/// Verdict of a route about a path that its readings differ about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The route holds if any reading matches, as for rejections.
    Holds,
    /// The route holds if all readings match.
    Fails,
}

/// Readings of one path, none twice; usually it has one.
#[derive(Debug)]
pub(super) struct PathReadings(Vec<String>);

impl PathReadings {
    /// Reads a path in each way.
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

    /// Whether they match, by what a doubt counts as.
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

/// Path without empty and dotted segments, and with slashes for backslashes.
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
