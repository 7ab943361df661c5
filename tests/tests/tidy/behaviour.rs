//! Table of behaviours in tests/README.md: each named test is a test function of the named file.

use std::fs;
use std::path::Path;

use crate::reference::read;
use crate::resource::test_names;
use crate::workspace::workspace;

const DOCUMENT: &str = "tests/README.md";
const HEADING: &str = "\n### Behaviours\n";

/// Levels of tests, with the folder of their files.
const LEVELS: [(&str, &str); 7] = [
    ("unit", ""),
    ("contract", "proxy/src/contract"),
    ("SDK", "app-sdk/tests"),
    ("simulation", "tests/simulation/tests"),
    ("e2e", "tests/e2e"),
    ("azure", "tests/azure"),
    ("tidy", "tests/tests/tidy"),
];

/// Number of behaviours below which the table is considered unread.
const BEHAVIOURS_MIN: usize = 25;

/// Rows whose test does not exist.
pub(crate) fn problems() -> Vec<String> {
    let text = read(Path::new(DOCUMENT));
    let found = differences(&text, |path| fs::read_to_string(workspace().join(path)).ok());
    let behaviours = rows(&text).filter(|row| !row[0].is_empty()).count();
    assert!(behaviours >= BEHAVIOURS_MIN, "only {behaviours} behaviours were found: does this test read the table?");
    found
}

/// Cells of the rows: behaviour, level and test. A row without a behaviour belongs to the one above.
fn rows(text: &str) -> impl Iterator<Item = [&str; 3]> {
    let (_, section) = text.split_once(HEADING).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        [(); 3].map(|()| cells.next().unwrap_or_default())
    })
}

fn differences(text: &str, source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    for [_, level, test] in rows(text) {
        let test = test.trim_matches('`');
        let Some((_, folder)) = LEVELS.iter().find(|(name, _)| *name == level) else {
            problems.push(format!("{level} is no level of {test}"));
            continue;
        };
        let (file, name) = test.rsplit_once("::").unwrap_or_default();
        let path = Path::new(folder).join(format!("{file}.rs"));
        match source(&path.to_string_lossy()) {
            Some(text) if test_names(&text).iter().any(|found| found == name) => {}
            Some(_) => problems.push(format!("{} has no test {name}", path.display())),
            None => problems.push(format!("there is no file {}", path.display())),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_or_a_file_that_is_gone_and_an_unknown_level_are_found() {
        let text = "## Tests\n\n### Behaviours\n\n| behaviour | level | test |\n|---|---|---|\n\
                    | order | e2e | `order::kept` |\n| | e2e | `order::gone` |\n| limits | SDK | `links/none::x` |\n\
                    | tokens | moon | `a::b` |\n\n## Other\n| x | y | z |\n";
        let found = differences(text, |path| (path == "tests/e2e/order.rs").then(|| "#[test]\nfn kept() {}".into()));
        let expected = [
            "tests/e2e/order.rs has no test gone",
            "there is no file app-sdk/tests/links/none.rs",
            "moon is no level of a::b",
        ];
        assert_eq!(found, expected);
    }
}
