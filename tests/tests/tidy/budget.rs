//! Product lines of each layer, and their budget: the table *Lines* of CONTRIBUTING.md.
//!
//! ```text
//!  files that ship ─ without items and modules of `cfg(test)` ─► lines by layer ─► at most the budget
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::reference::read;
use crate::workspace::{members, rust_files, workspace};

/// Layers by the start of a path; the first match counts.
const LAYERS: [(&str, &str); 12] = [
    ("proxy/src/engine", "engine"),
    ("proxy/src/features/store", "store"),
    ("proxy/src/features", "features"),
    ("proxy/src/fleet", "fleet"),
    ("proxy/src/edge", "edge"),
    ("proxy/src/ground", "ground"),
    ("proxy/src/", "node"),
    ("proxy/command/", "command"),
    ("proxy/vectored/", "node"),
    ("protocol/", "protocol"),
    ("app-sdk/", "SDK"),
    ("deploy/demo/", "demo"),
];

/// Names of folders and files that hold only tests.
const TEST_PARTS: [&str; 7] = ["test", "tests", "contract", "fixtures", "examples", "benches", "template"];
const TEST_ENDS: [&str; 4] = ["_test", "_tests", "testbed", "fuzzing"];

/// Lines and, of these, lines of code: neither blank nor a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Lines {
    all: usize,
    code: usize,
}

/// Compares the layers with the table of a document. Returns one problem per line.
pub(crate) fn problems(document: &str) -> String {
    let (mut problems, lines) = (String::new(), lines_by_layer());
    let rows = document.lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [layer, all, code] = cells[..] else { return None };
        let number = |cell: &str| cell.replace(' ', "").parse::<usize>().ok();
        Some((layer.to_owned(), Lines { all: number(all)?, code: number(code)? }))
    });
    let budgets: BTreeMap<_, _> = rows.collect();
    for (layer, Lines { all, code }) in &lines {
        match budgets.get(*layer) {
            None => writeln!(problems, "the layer {layer} has no budget: it has {all} lines, {code} of code").unwrap(),
            Some(budget) if *all > budget.all || *code > budget.code => {
                let Lines { all: most, code: most_code } = budget;
                let text = "retire what costs more than it brings, or move lines from another layer's budget";
                writeln!(problems, "{layer}: {all} lines of {most}, {code} of code of {most_code}: {text}").unwrap();
            }
            Some(_) => {}
        }
    }
    problems
}

fn lines_by_layer() -> BTreeMap<&'static str, Lines> {
    let (mut files, mut tests) = (BTreeMap::new(), BTreeSet::new());
    for member in members().iter().filter(|member| layer(&format!("{member}/src/")).is_some()) {
        for path in rust_files(&Path::new(member).join("src")).into_iter().filter(|path| !is_test(path)) {
            let (shipped, modules) = without_tests(&read(&path));
            tests.extend(modules.iter().flat_map(|module| files_of(&path, module)));
            files.insert(path, shipped);
        }
    }
    let mut layers: BTreeMap<_, Lines> = BTreeMap::new();
    for (path, shipped) in files.into_iter().filter(|(path, _)| !tests.iter().any(|test| path.starts_with(test))) {
        let lines = layers.entry(layer(&path.to_string_lossy()).unwrap()).or_default();
        lines.all += shipped.len();
        lines.code +=
            shipped.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with("//")).count();
    }
    layers
}

fn stem(part: &Path) -> String {
    part.to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn is_test(path: &Path) -> bool {
    let mut parts = path.iter().map(|part| stem(Path::new(part)));
    parts.any(|part| TEST_PARTS.contains(&&*part) || TEST_ENDS.iter().any(|end| part.ends_with(end)))
}

fn layer(path: &str) -> Option<&'static str> {
    LAYERS.iter().find(|(start, _)| path.starts_with(start)).map(|(_, layer)| *layer)
}

/// Cuts items of `cfg(test)`. Returns the other lines, and the names of modules of tests in files of their own. An item
/// ends at its indent, so braces in texts don't count.
fn without_tests(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut shipped, mut modules, mut lines) = (Vec::new(), Vec::new(), text.lines().peekable());
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        if !start.starts_with("#[cfg(test)") && !start.starts_with("#[cfg(all(test") {
            shipped.push(line.to_owned());
            continue;
        }
        let indent = line.len() - start.len();
        while lines.next_if(|line| line.trim_start().starts_with("#[")).is_some() {}
        let declared = lines.peek().and_then(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "));
        if let Some((_, module)) = declared {
            modules.push(module.to_owned());
        }
        for line in lines.by_ref() {
            let is_at_indent = line.len() - line.trim_start().len() == indent;
            if is_at_indent && line.trim_end().ends_with([';', ',', '}', ')']) {
                break;
            }
        }
    }
    (shipped, modules)
}

/// Paths that a module of a file may have: a file and a folder, beside the file or below it.
fn files_of(file: &Path, module: &str) -> Vec<PathBuf> {
    let folder = file.parent().unwrap();
    let below = folder.join(file.file_stem().unwrap());
    let is_root = ["lib", "main", "mod"].iter().any(|root| file.file_stem().is_some_and(|stem| stem == *root));
    let place = if is_root { folder.to_owned() } else { below };
    let paths = [place.join(module).with_extension("rs"), place.join(module)];
    paths.into_iter().filter(|path| workspace().join(path).exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_modules_of_tests_are_cut() {
        let text = "fn a() {}\n#[cfg(test)]\nmod far;\n#[cfg(test)]\n#[derive(Debug)]\nstruct B {\n    b: u8,\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod tests {\n    fn d() {}\n}\n";
        assert_eq!(without_tests(text), (vec!["fn a() {}".into(), "fn c() {}".into()], vec!["far".into()]));
    }

    #[test]
    fn layers_follow_folders() {
        let layers = [
            "proxy/src/engine/shard/apply.rs",
            "proxy/src/fleet.rs",
            "proxy/src/ground/net/socket.rs",
            "app-sdk/src/hub.rs",
        ];
        assert_eq!(layers.map(|path| layer(path).unwrap()), ["engine", "fleet", "ground", "SDK"]);
    }

    #[test]
    fn a_layer_above_its_budget_is_named() {
        let text = problems("| engine | 1 | 1 |\n");
        assert!(text.contains("engine: ") && text.contains("the layer fleet has no budget"), "{text}");
    }
}
