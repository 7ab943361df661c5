//! Test programs named in `tests/run`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::workspace::{members, workspace};

/// Member whose tests run in `tests/run --full` only.
const BENCHMARKS: &str = "tests/bench";

/// Variables of `tests/run` that list test programs.
const LISTS: [&str; 4] = ["QUICK_TESTS", "PROCESS_TESTS", "TESTED_PROGRAMS", "TESTED_EXAMPLES"];

/// Returns the names of test programs that `tests/run` runs.
pub(crate) fn listed() -> BTreeSet<String> {
    let script = fs::read_to_string(workspace().join("tests/run")).unwrap();
    LISTS.iter().flat_map(|list| words(&script, list)).collect()
}

/// Returns the names of all programs that Cargo would build with a test harness.
pub(crate) fn existing() -> BTreeSet<String> {
    members().iter().filter(|member| *member != BENCHMARKS).flat_map(|member| targets(member)).collect()
}

fn words(script: &str, list: &str) -> Vec<String> {
    let (_, rest) = script.split_once(&format!("\n{list}=\"")).unwrap();
    let (names, _) = rest.split_once('"').unwrap();
    names.replace('\\', " ").split_whitespace().map(str::to_owned).collect()
}

fn targets(member: &str) -> Vec<String> {
    let folder = workspace().join(member);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let mut names = named_targets(&manifest);
    if folder.join("src/main.rs").is_file() && !manifest.contains("[[bin]]") {
        names.extend(field(&manifest, "name"));
    }
    names.extend(found_tests(&folder.join("tests")));
    names
}

/// Reads the targets of a manifest. Programs are tested by default, examples are not.
fn named_targets(manifest: &str) -> Vec<String> {
    let sections = manifest.split("\n[");
    let tested = sections.filter(|section| {
        let is_default = section.starts_with("[bin]]") || section.starts_with("[test]]");
        let is_example = section.starts_with("[example]]");
        is_default && !section.contains("\ntest = false") || is_example && section.contains("\ntest = true")
    });
    tested.filter_map(|section| field(section, "name")).collect()
}

fn field(section: &str, key: &str) -> Option<String> {
    let line = section.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
    Some(line.trim_end_matches('"').to_owned())
}

/// Finds the tests of a folder, as Cargo does: each file, and each folder with a `main.rs`.
fn found_tests(folder: &Path) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let roots = paths.filter(|path| path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").is_file());
    roots.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_tested_unless_their_manifest_says_otherwise_and_examples_only_if_it_does() {
        let manifest = "[package]\nname = \"p\"\n\n[[bin]]\nname = \"a\"\n\n[[bin]]\nname = \"b\"\ntest = false\n\n\
                        [[example]]\nname = \"c\"\n\n[[example]]\nname = \"d\"\ntest = true\n\n[[test]]\nname = \"e\"\n";
        assert_eq!(named_targets(manifest), ["a", "d", "e"]);
    }
}
