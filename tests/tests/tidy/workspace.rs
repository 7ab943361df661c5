//! The crates of the workspace: every root that Cargo would find in the folders of its members.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{Crate, Kind};

/// Folders whose files are roots, each of a crate of its own.
const ROOT_FOLDERS: [(&str, Kind); 6] = [
    ("src/bin", Kind::Tool),
    ("tests", Kind::Test),
    ("examples", Kind::Example),
    ("benches", Kind::Test),
    ("fuzz_targets", Kind::Tool),
    ("", Kind::Tool),
];

/// Returns all crates of all members.
pub(crate) fn crates() -> Vec<Crate> {
    members().iter().flat_map(|member| roots(member).into_iter().map(|root| read(member, &root))).collect()
}

/// Returns the source files that belong to no crate.
pub(crate) fn orphans(crates: &[Crate]) -> Vec<PathBuf> {
    let reached: BTreeSet<_> = crates.iter().flat_map(|krate| krate.files.iter().map(|file| &file.path)).collect();
    let members = members();
    let mut all: Vec<PathBuf> = members.iter().flat_map(|member| rust_files(Path::new(member))).collect();
    all.retain(|path| !reached.contains(path));
    all.retain(|path| !path.components().any(|part| part.as_os_str() == "cargo-fuzz"));
    all.sort();
    all.dedup();
    all
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folders of the members, from the manifest of the workspace.
fn members() -> Vec<String> {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("members = [").unwrap();
    let (list, _) = rest.split_once(']').unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn roots(member: &str) -> Vec<PathBuf> {
    let member = Path::new(member);
    let mut roots: Vec<PathBuf> = ["src/lib.rs", "src/main.rs"].iter().map(|root| member.join(root)).collect();
    for (folder, _) in ROOT_FOLDERS {
        for entry in entries(&member.join(folder)) {
            let is_file = entry.extension().is_some_and(|extension| extension == "rs");
            roots.push(if is_file { entry } else { entry.join("main.rs") });
        }
    }
    roots.retain(|root| workspace().join(root).is_file());
    roots.sort();
    roots.dedup();
    roots
}

fn read(member: &str, root: &Path) -> Crate {
    let inside = root.strip_prefix(member).unwrap_or(root);
    let of_folder = || ROOT_FOLDERS.iter().find(|(folder, _)| inside.starts_with(folder)).map(|(_, kind)| *kind);
    let kind = match inside.to_str() {
        Some("src/lib.rs") => Kind::Library,
        Some("src/main.rs") => Kind::Main,
        _ => of_folder().unwrap_or(Kind::Tool),
    };
    let name = if kind == Kind::Library { member.to_owned() } else { root.to_string_lossy().into_owned() };
    Crate::read(name, root, kind, &|path| fs::read_to_string(workspace().join(path)).ok()).unwrap()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = workspace().join(folder).read_dir() else { return Vec::new() };
    let mut entries: Vec<_> = entries.map(|entry| folder.join(entry.unwrap().file_name())).collect();
    entries.sort();
    entries
}

/// All Rust files of a member, without those of members below it.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
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
