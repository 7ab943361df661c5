//! Table of resources in SECURITY.md, compared with the code: flags and constants that are limits, users of bounded
//! tables, and the named tests.
//!
//! ```text
//!  flags of `serve`, --…-max…, --…-per-second ──┐
//!  constants …_MAX…, …_PER_SECOND ─────────────┼─► column "limit" of a row: `--flag`, `file::CONSTANT`, `file`
//!  files that use Permits, Leases, Budget, … ──┘
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::limit::constants;
use crate::reference::{read, serve_flags};
use crate::workspace::{members, rust_files};

/// Document with the table, and the heading above it.
const DOCUMENT: &str = "SECURITY.md";
const HEADING: &str = "\n## All resources\n";

/// Folders with the code of a node.
const FOLDERS: [&str; 4] = ["proxy/src", "protocol/channel/src", "protocol/link/src", "protocol/process/src"];

/// Modules without resources of a running node.
const LEFT_OUT: [&str; 3] = ["/contract", "/fuzzing", "/tests"];

/// Parts of the names of limits.
const FLAG_MARKS: [&str; 2] = ["-max", "-per-second"];
const CONSTANT_MARKS: [&str; 2] = ["MAX", "PER_SECOND"];

/// Bounded tables and counters.
const TABLES: [&str; 6] = ["Permits", "Leases", "Budget", "ByteBudget", "Recent", "Holders"];

/// Columns of the table, by index.
const LIMIT_COLUMN: usize = 3;
const TEST_COLUMN: usize = 6;

/// Differences between the table and the code.
pub(crate) fn problems() -> Vec<String> {
    let text = read(Path::new(DOCUMENT));
    let rows = rows(&text);
    let files: Vec<_> = FOLDERS.iter().flat_map(|folder| rust_files(Path::new(folder))).collect();
    let is_code = |path: &&PathBuf| !LEFT_OUT.iter().any(|part| path.to_string_lossy().contains(part));
    let mut limits: BTreeSet<String> = files.iter().filter(is_code).flat_map(|path| limits_of(path)).collect();
    let flags = serve_flags().into_iter().map(|flag| format!("--{}", flag.name));
    limits.extend(flags.filter(|flag| FLAG_MARKS.iter().any(|mark| flag.contains(mark))));
    let sources = members().into_iter().flat_map(|member| rust_files(Path::new(&member))).map(|path| read(&path));
    let tests: BTreeSet<String> = sources.flat_map(|text| test_names(&text)).collect();
    differences(&rows, &limits, &tests)
}

/// Cells of the rows of the table.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let (_, section) = text.split_once(HEADING).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with("| ")).skip(1).map(|line| line.split(" | ").collect()).collect()
}

/// Limits of a source file: its constants, or its name if it has none and uses a bounded table.
fn limits_of(path: &Path) -> Vec<String> {
    let text = read(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_limit = |name: &str| CONSTANT_MARKS.iter().any(|mark| name.contains(mark));
    let of_file = constants(&text);
    let named: Vec<_> = of_file.iter().filter(|constant| is_limit(&constant.name)).collect();
    if named.is_empty() && uses_table(&text) {
        return vec![stem.into_owned()];
    }
    named.iter().map(|constant| format!("{stem}::{}", constant.name)).collect()
}

fn uses_table(text: &str) -> bool {
    let imports = text.split("use crate::ground::bounded::").skip(1).filter_map(|rest| rest.split_once(';'));
    imports.flat_map(|(names, _)| names.split(|char: char| !char.is_alphanumeric())).any(|name| TABLES.contains(&name))
}

/// Names of the tests in a source file.
pub(crate) fn test_names(text: &str) -> Vec<String> {
    let marked = ["#[test]", "#[tokio::test"].into_iter().flat_map(|mark| text.split(mark).skip(1));
    let names = marked.filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
    names.map(|(name, _)| name.to_owned()).collect()
}

fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn differences(rows: &[Vec<&str>], limits: &BTreeSet<String>, tests: &BTreeSet<String>) -> Vec<String> {
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column - 1));
    let named: BTreeSet<_> = cells(LIMIT_COLUMN).flat_map(|cell| spans(cell)).collect();
    let mut problems = Vec::new();
    for limit in limits.iter().filter(|limit| !named.contains(limit.as_str())) {
        problems.push(format!("{limit} has no row: who can use it up, and what happens then?"));
    }
    for name in named.iter().filter(|name| !limits.contains(**name)) {
        problems.push(format!("{name} is no limit of the code"));
    }
    for row in rows {
        let own: Vec<_> = row.get(TEST_COLUMN - 1).into_iter().flat_map(|cell| spans(cell)).collect();
        if own.is_empty() {
            problems.push(format!("{} has no test", row.first().unwrap_or(&"")));
        }
        let unknown = own.into_iter().filter(|test| !tests.contains(*test));
        problems.extend(unknown.map(|test| format!("there is no test {test}")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_without_a_row_a_row_without_a_limit_and_a_test_that_is_gone_are_found() {
        let text = "\n## All resources\n\n| resource | used by | limit | share | when full | test |\n|---|---|---|---|---|---|\n\
                    | sockets | any host | `--a-max`, `file::B_MAX`, `old::C_MAX` | – | 503 | `one`, `gone` |\n\
                    | names | any host | `table` | – | 503 | |\n\n## Other\n| `x` |\n";
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let limits = set(&["--a-max", "file::B_MAX", "file::NEW_MAX", "table"]);
        let found = differences(&rows(text), &limits, &set(&["one"])).join("\n");
        let expected = ["file::NEW_MAX has no row", "old::C_MAX is no limit", "no test gone", "| names has no test"];
        assert!(expected.iter().all(|words| found.contains(words)), "{found}");
        assert_eq!(found.lines().count(), expected.len(), "{found}");
        let source = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test(start_paused = true)]\nasync fn two() {}";
        assert_eq!(test_names(source), ["one", "two"]);
        assert!(
            uses_table("use crate::ground::bounded::{Full, Permits};")
                && !uses_table("use crate::ground::bounded::{BudgetShare};")
        );
    }
}
