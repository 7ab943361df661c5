//! The crates of the workspace: every root that Cargo would find in the folders of its members.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{Crate, Kind, normal};

/// Folders with crate roots: each file is a separate crate.
const ROOT_FOLDERS: [(&str, Kind); 6] = [
    ("src/bin", Kind::Tool),
    ("tests", Kind::Test),
    ("examples", Kind::Example),
    ("benches", Kind::Test),
    ("fuzz_targets", Kind::Tool),
    ("", Kind::Tool),
];

pub(crate) fn crates() -> Vec<Crate> {
    members()
        .iter()
        .flat_map(|member| roots(member).into_iter().map(|(root, kind)| read(member, &root, kind)))
        .collect()
}

/// Returns the source files that belong to no crate. Files in `rows` (`tests/mistakes`) intentionally don't compile.
pub(crate) fn orphans(crates: &[Crate]) -> Vec<PathBuf> {
    let reached: BTreeSet<_> = crates.iter().flat_map(|krate| krate.files.iter().map(|file| &file.path)).collect();
    let members = members();
    let mut all: Vec<PathBuf> = members.iter().flat_map(|member| rust_files(Path::new(member))).collect();
    all.retain(|path| !reached.contains(path));
    all.retain(|path| !path.components().any(|part| part.as_os_str() == "cargo-fuzz" || part.as_os_str() == "rows"));
    all.sort();
    all.dedup();
    all
}

pub(crate) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folders of the members, from the manifest of the workspace.
pub(crate) fn members() -> Vec<String> {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("members = [").unwrap();
    let (list, _) = rest.split_once(']').unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Finds the roots of a member: the targets in its manifest, and the files that Cargo finds automatically.
fn roots(member: &str) -> Vec<(PathBuf, Kind)> {
    let named = named_roots(member);
    let mut roots: Vec<_> = [("src/lib.rs", Kind::Library), ("src/main.rs", Kind::Main), ("build.rs", Kind::Tool)]
        .map(place(member))
        .into();
    for (folder, kind) in ROOT_FOLDERS {
        if folder.is_empty() && !named.is_empty() {
            continue;
        }
        for entry in entries(&Path::new(member).join(folder)) {
            let is_file = entry.extension().is_some_and(|extension| extension == "rs");
            roots.push((if is_file { entry } else { entry.join("main.rs") }, kind));
        }
    }
    roots.extend(named);
    roots.retain(|(root, _)| workspace().join(root).is_file());
    roots.sort_by(|(one, _), (other, _)| one.cmp(other));
    roots.dedup_by(|(one, _), (other, _)| one == other);
    roots
}

/// Reads the targets with a path from the manifest of a member.
fn named_roots(member: &str) -> Vec<(PathBuf, Kind)> {
    let manifest = fs::read_to_string(workspace().join(member).join("Cargo.toml")).unwrap();
    let targets = [("[lib]", Kind::Library), ("[[bin]]", Kind::Tool), ("[[test]]", Kind::Test)];
    let mut kind = None;
    let mut roots = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            kind = targets.iter().find(|(header, _)| *header == line).map(|(_, kind)| *kind);
        } else if let (Some(kind), Some(path)) = (kind, line.strip_prefix("path = ")) {
            roots.push(place(member)((path.trim_matches('"'), kind)));
        }
    }
    roots
}

fn place(member: &str) -> impl Fn((&str, Kind)) -> (PathBuf, Kind) {
    move |(root, kind)| (normal(&Path::new(member).join(root)), kind)
}

fn read(member: &str, root: &Path, kind: Kind) -> Crate {
    let name = if kind == Kind::Library { member.to_owned() } else { root.to_string_lossy().into_owned() };
    Crate::read(name, root, kind, &|path| fs::read_to_string(workspace().join(path)).ok()).unwrap()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = workspace().join(folder).read_dir() else { return Vec::new() };
    let mut entries: Vec<_> = entries.map(|entry| folder.join(entry.unwrap().file_name())).collect();
    entries.sort();
    entries
}

/// All Rust files of a member, without members below it.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in entries(folder) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = workspace().join(&entry);
        if path.is_dir() {
            let is_member = path.join("Cargo.toml").is_file();
            if !is_member && name != "target" && name != "node_modules" {
                files.extend(rust_files(&entry));
            }
        } else if name.ends_with(".rs") {
            files.push(entry);
        }
    }
    files
}
