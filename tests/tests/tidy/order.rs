//! Order of modules, and circles of files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::import::{Import, imports};
use crate::source::{Crate, Kind, SourceFile};
use crate::violation::Violation;

/// Maximum number of modules of a program without a table.
const MODULES_WITHOUT_TABLE: usize = 2;

/// Checks that modules import only those above them in the table of their parent's docs, which lists the lowest first.
/// The root of a crate with several modules has a table, and so may any file, such as the head of a layer.
pub(crate) fn violations(krate: &Crate) -> Vec<Violation> {
    let imports = imports(krate);
    let tables = krate.files.iter().map(|parent| (parent, table(&parent.text)));
    let mut violations = Vec::new();
    for (parent, table) in tables.filter(|(parent, table)| parent.module.is_empty() || !table.is_empty()) {
        violations.extend(table_violations(parent, &table, krate.kind));
        if !table.is_empty() {
            violations.extend(imports.iter().filter_map(|import| order_violation(krate, parent, &table, import)));
        }
    }
    violations
}

/// Compares the table of a file with the modules that it declares.
fn table_violations(parent: &SourceFile, table: &[String], kind: Kind) -> Vec<Violation> {
    let declared: Vec<_> =
        parent.facts.mods.iter().filter(|decl| !decl.place.is_test && decl.place.inside.is_empty()).collect();
    if table.is_empty() {
        let is_needed = matches!(kind, Kind::Library | Kind::Main) && declared.len() > MODULES_WITHOUT_TABLE;
        return is_needed
            .then(|| Violation::new(parent, 1, "has no table of its modules".into()))
            .into_iter()
            .collect();
    }
    let unlisted = declared
        .iter()
        .filter(|decl| !table.contains(&decl.name))
        .map(|decl| Violation::new(parent, decl.place.line, format!("`{}` is not in the table of modules", decl.name)));
    let gone = table.iter().filter(|name| !declared.iter().any(|decl| decl.name == **name)).map(|name| {
        Violation::new(parent, 1, format!("`{name}` is in the table of modules, but there is no such module"))
    });
    unlisted.chain(gone).collect()
}

/// Finds an import of a higher module, or of the parent, by a module of a table.
fn order_violation(krate: &Crate, parent: &SourceFile, table: &[String], import: &Import) -> Option<Violation> {
    let file = krate.files.get(import.from)?;
    let height = |file: &SourceFile| {
        let name = file.module.strip_prefix(&parent.module[..])?.first()?;
        table.iter().position(|row| row == name)
    };
    let from = height(file)?;
    let target = krate.files.get(import.to)?;
    let problem = match height(target) {
        Some(to) if to > from => "of a higher module",
        None if import.to == 0 => "of the crate root",
        _ => return None,
    };
    Some(Violation::new(file, import.line, format!("imports `{}` {problem}", import.path)))
}

/// Checks for import circles. Imports of a parent by its child modules are checked by [`family_cycles`] instead.
pub(crate) fn cycles(krate: &Crate) -> Vec<Violation> {
    circles(krate, |from, to| !is_below(from, to))
}

/// Checks that no file imports, directly or indirectly, a child module that imports it.
pub(crate) fn family_cycles(krate: &Crate) -> Vec<Violation> {
    circles(krate, |_, _| true)
}

fn is_below(child: &SourceFile, parent: &SourceFile) -> bool {
    child.module.len() > parent.module.len() && child.module.starts_with(&parent.module)
}

/// Shortest circle of each strongly connected set of files.
fn circles(krate: &Crate, counts: fn(&SourceFile, &SourceFile) -> bool) -> Vec<Violation> {
    let mut edges: BTreeMap<usize, BTreeMap<usize, Import>> = BTreeMap::new();
    for import in imports(krate) {
        if let (Some(from), Some(to)) = (krate.files.get(import.from), krate.files.get(import.to))
            && counts(from, to)
        {
            edges.entry(import.from).or_default().entry(import.to).or_insert(import);
        }
    }
    let (mut violations, mut seen) = (Vec::new(), BTreeSet::new());
    loop {
        let starts = edges.keys().filter(|start| !seen.contains(*start));
        let circles = starts.filter_map(|start| circle(*start, &edges, &seen));
        let Some(circle) = circles.min_by_key(Vec::len) else { return violations };
        seen.extend(circle.iter().map(|import| import.from));
        let steps: Vec<_> = circle.iter().map(|step| describe(krate, step)).collect();
        let first = circle.first().and_then(|step| Some((krate.files.get(step.from)?, step.line)));
        violations
            .extend(first.map(|(file, line)| Violation::new(file, line, format!("circle: {}", steps.join(", ")))));
    }
}

fn describe(krate: &Crate, step: &Import) -> String {
    let name = |file: usize| krate.files.get(file).map(|file| file.path.display().to_string()).unwrap_or_default();
    format!("{}:{} imports `{}` of {}", name(step.from), step.line, step.path, name(step.to))
}

/// Shortest path from a file back to itself that avoids some files.
fn circle(
    start: usize,
    edges: &BTreeMap<usize, BTreeMap<usize, Import>>,
    avoided: &BTreeSet<usize>,
) -> Option<Vec<Import>> {
    let mut way: BTreeMap<usize, &Import> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for (to, import) in edges.get(&at).into_iter().flatten().filter(|(to, _)| !avoided.contains(*to)) {
            if way.contains_key(to) {
                continue;
            }
            way.insert(*to, import);
            if *to == start {
                return Some(steps_to(start, &way));
            }
            queue.push_back(*to);
        }
    }
    None
}

fn steps_to(start: usize, way: &BTreeMap<usize, &Import>) -> Vec<Import> {
    let mut steps = VecDeque::new();
    let mut at = start;
    while let Some(step) = way.get(&at) {
        steps.push_front((*step).clone());
        at = step.from;
        if at == start {
            break;
        }
    }
    steps.into()
}

/// Modules in the rows of the table with a head that begins with *module*.
fn table(text: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| !line.starts_with("//! | module |"));
    let rows = lines.map_while(|line| line.strip_prefix("//! |")).skip(2);
    let cells = rows.filter_map(|row| row.split('|').next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(|name| name.trim_start_matches("mod@").to_owned()).collect()
}
