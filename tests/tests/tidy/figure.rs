//! Figures of each crate.

use crate::rule::Rule;
use crate::source::Crate;

/// Counted rules, each a column of the table.
const COLUMNS: [(Rule, &str); 8] = [
    (Rule::Order, "imports against the order"),
    (Rule::Cycle, "circles of files"),
    (Rule::Family, "circles with parents"),
    (Rule::TypeName, "type names declared again"),
    (Rule::FileName, "file names again"),
    (Rule::ShortDoc, "docs of ≤ 3 words"),
    (Rule::Sleep, "sleeps"),
    (Rule::Unsafe, "unsafe allowed"),
];

/// Returns a row of figures per crate, as a Markdown table.
pub(crate) fn table(crates: &[Crate]) -> String {
    let titles = COLUMNS.map(|(_, title)| title).join(" | ");
    let head = format!("| crate | files | lines | types | {titles} |\n|---|{}", "--:|".repeat(COLUMNS.len() + 3));
    let rows = crates.iter().map(row);
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

fn row(krate: &Crate) -> String {
    let lines: usize = krate.files.iter().map(|file| file.text.lines().count()).sum();
    let types =
        krate.files.iter().flat_map(|file| &file.facts.types).filter(|declared| !declared.place.is_test).count();
    let counts = COLUMNS.map(|(rule, _)| rule.violations(krate).len().to_string()).join(" | ");
    format!("| {} | {} | {lines} | {types} | {counts} |", krate.name, krate.files.len())
}
