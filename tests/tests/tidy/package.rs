//! Manifests of published crates: required fields, and no dependency on files outside of the package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::document::resolve;
use crate::workspace::{members, rust_files, workspace};

/// Published crates. All others have `publish = false`.
const PUBLISHED: [&str; 9] = [
    "app-sdk",
    "app-sdk/macros",
    "protocol",
    "protocol/channel",
    "protocol/link",
    "protocol/process",
    "proxy",
    "proxy/command",
    "proxy/vectored",
];

/// Beginnings of required lines in each manifest.
const FIELDS: [&str; 11] = [
    "name = \"trunkline",
    "description = \"",
    "version.workspace = true",
    "edition.workspace = true",
    "rust-version.workspace = true",
    "license.workspace = true",
    "repository.workspace = true",
    "keywords = [\"",
    "categories = [\"",
    "[package.metadata.docs.rs]",
    "all-features = true",
];

/// Maximum number of keywords accepted by registries.
const KEYWORDS_MAX: usize = 5;

/// Macros and attributes with a file name.
const INCLUSIONS: [&str; 3] = ["include_str!(\"", "include_bytes!(\"", "#[path = \""];

/// Returns a line for each problem that prevents publishing.
pub(crate) fn problems() -> Vec<String> {
    let mut problems = Vec::new();
    let root = read(Path::new("Cargo.toml"));
    for member in members() {
        let manifest = read(&Path::new(&member).join("Cargo.toml"));
        let is_private = manifest.lines().any(|line| line == "publish = false");
        if !PUBLISHED.contains(&member.as_str()) {
            problems.extend((!is_private).then(|| format!("{member}: neither `publish = false` nor in PUBLISHED")));
            continue;
        }
        problems.extend(is_private.then(|| format!("{member}: in PUBLISHED, but its manifest says `publish = false`")));
        problems.extend(manifest_problems(&manifest).into_iter().map(|problem| format!("{member}: {problem}")));
        problems
            .extend(dependency_problems(&manifest, &root).into_iter().map(|problem| format!("{member}: {problem}")));
        problems.extend(file_problems(Path::new(&member)));
    }
    problems
}

/// Returns the dependencies of the SDK's examples with other features there than in `cargo build`: these and all that
/// depends on them are compiled twice.
pub(crate) fn compiled_twice() -> Vec<String> {
    let built = features(&["--edges", "no-dev"]);
    let mut twice = features(&["--package", "trunkline"]);
    twice.retain(|name, _| !name.starts_with("trunkline v"));
    let differing = twice.iter().filter_map(|(name, features)| Some((name, features, built.get(name)?)));
    let differing = differing.filter(|(_, features, built)| !features.is_subset(built));
    differing.map(|(name, features, built)| format!("{name}: {features:?}, built with {built:?}")).collect()
}

/// Returns the feature sets of each dependency. Host and target may have different ones.
fn features(selection: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--prefix", "none", "--no-dedupe", "--format", "{p}|{f}"])
        .args(selection)
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut features = BTreeMap::<_, BTreeSet<_>>::new();
    for line in String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.contains('|')) {
        let (package, set) = line.split_once('|').unwrap();
        let name_and_version: Vec<_> = package.split(' ').take(2).collect();
        features.entry(name_and_version.join(" ")).or_default().insert(set.to_owned());
    }
    assert!(features.len() > 100, "only {} dependencies: does this test still read Cargo's answer?", features.len());
    features
}

fn read(path: &Path) -> String {
    fs::read_to_string(workspace().join(path)).unwrap()
}

/// Checks fields that a registry requires or shows.
fn manifest_problems(manifest: &str) -> Vec<String> {
    let is_there = |field: &&str| manifest.lines().any(|line| line.starts_with(field));
    let mut problems: Vec<_> =
        FIELDS.iter().filter(|field| !is_there(field)).map(|field| format!("no line `{field}`")).collect();
    let keywords =
        manifest.lines().find(|line| line.starts_with("keywords = ")).map_or(0, |line| line.split(',').count());
    if keywords > KEYWORDS_MAX {
        problems.push(format!("{keywords} keywords, {KEYWORDS_MAX} are allowed"));
    }
    problems
}

/// Checks that dependencies of a published crate are published at the version of the workspace. Dependencies of its
/// tests may also be a bare path, which a package omits.
fn dependency_problems(manifest: &str, root: &str) -> Vec<String> {
    let version = root.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    let mut problems = Vec::new();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let Some((name, rest)) = line.split_once([' ', '.', '=']).filter(|(name, _)| name.starts_with("trunkline"))
        else {
            continue;
        };
        let is_bare_path = rest.contains("path =");
        let declared = format!("{name} = {{ path = ");
        let declaration = root.lines().find(|line| line.starts_with(&declared)).unwrap_or_default();
        if is_bare_path && section != "[dev-dependencies]" {
            problems.push(format!("{name} is a bare path in {section}"));
        } else if !is_bare_path && !declaration.contains(&format!("version = {version}")) {
            problems.push(format!("{name} has not version {version} in the workspace's manifest"));
        }
    }
    problems
}

/// Checks that a package has a licence and a README, and that its code includes no file from outside.
fn file_problems(member: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    if fs::read_to_string(workspace().join(member).join("LICENSE")).ok() != Some(read(Path::new("LICENSE"))) {
        problems.push(format!("{}: no LICENSE like the project's", member.display()));
    }
    if !workspace().join(member).join("README.md").is_file() {
        problems.push(format!("{}: no README.md", member.display()));
    }
    for file in rust_files(member) {
        for named in inclusions(&read(&file)) {
            let place = resolve(&file, &named);
            if !place.starts_with(member) {
                problems.push(format!("{}: {named} is not in the package", file.display()));
            }
        }
    }
    problems
}

/// Returns the paths that a source file includes.
fn inclusions(source: &str) -> Vec<String> {
    let named = |marker: &&'static str| source.split(*marker).skip(1).filter_map(|rest| rest.split_once('"'));
    INCLUSIONS.iter().flat_map(named).map(|(path, _)| path.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "version = \"0.1.0\"\n\
                        trunkline-link = { path = \"protocol/link\", version = \"0.1.0\" }\n\
                        trunkline-tests = { path = \"tests\" }\n\
                        trunkline-proxy = { path = \"proxy\", version = \"0.0.9\" }\n";

    #[test]
    fn a_dependency_that_no_registry_has_is_found() {
        let of = |lines: &str| dependency_problems(lines, ROOT).len();
        assert_eq!(of("[dependencies]\ntrunkline-link.workspace = true\n"), 0);
        assert_eq!(of("[dependencies]\ntrunkline-link = { workspace = true, features = [\"axum\"] }\n"), 0);
        assert_eq!(of("[dependencies]\ntrunkline-link = { path = \"../link\" }\n"), 1);
        assert_eq!(of("[dependencies]\ntrunkline-tests.workspace = true\n"), 1, "it has no version");
        assert_eq!(of("[dependencies]\ntrunkline-proxy.workspace = true\n"), 1, "another version");
        assert_eq!(of("[dev-dependencies]\ntrunkline-tests = { path = \"../tests\" }\n"), 0, "it is left out");
        assert_eq!(of("[dev-dependencies]\ntrunkline-tests.workspace = true\n"), 1);
    }

    #[test]
    fn a_missing_field_and_a_keyword_too_many_are_found() {
        let whole = FIELDS.join("\n") + "\n";
        assert_eq!(manifest_problems(&whole), [""; 0]);
        assert_eq!(manifest_problems(&whole.replace("repository", "homepage")).len(), 1);
        let many = whole.replace("keywords = [\"", "keywords = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]");
        assert_eq!(manifest_problems(&many), ["6 keywords, 5 are allowed"]);
    }

    #[test]
    fn included_files_are_found() {
        let marker = INCLUSIONS.map(|marker| format!("{marker}../x\"")).join(" ");
        assert_eq!(inclusions(&marker), ["../x"; 3]);
    }
}
