//! The rooms of the proxy stand in one order, and none imports a higher one.
//!
//! Cargo keeps crates free of cycles; inside a crate nothing does but this.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lower rooms first, as in the table of `lib.rs`.
const ROOMS: [&str; 15] = [
    "metrics",
    "logging",
    "auth",
    "config",
    "limits",
    "net",
    "transport",
    "upstream",
    "shard",
    "client",
    "link",
    "frontend",
    "admin",
    "node",
    "cli",
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn room_of(file: &Path, source: &Path) -> String {
    let first = file.strip_prefix(source).unwrap().components().next().unwrap();
    Path::new(&first).file_stem().unwrap().to_string_lossy().into_owned()
}

/// The rooms that a file's code names by `crate::`; what stands behind `#[cfg(test)]` may look anywhere.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn no_room_imports_a_higher_one() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut seen = 0;
    for file in files(&source) {
        let room = room_of(&file, &source);
        if room == "lib" || room == "main" {
            continue;
        }
        let own = place(&room).unwrap_or_else(|| panic!("{room} has no place in the order"));
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            let other =
                place(&import).unwrap_or_else(|| panic!("{} imports {import}, which has no place", file.display()));
            assert!(other <= own, "{}: {room} imports the higher {import}", file.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} imports were found: does this test still read the code?");
}

#[test]
fn the_table_of_the_library_tells_the_same_order() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let rows: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next()).collect();
    assert_eq!(rows, ROOMS);
}
