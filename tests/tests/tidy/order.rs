//! Order of modules, imports of the engine, and circles of files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::import::{Import, imports};
use crate::source::{Crate, Kind, SourceFile};
use crate::violation::Violation;

/// Maximum number of modules of a program without a table.
const MODULES_WITHOUT_TABLE: usize = 2;

/// Checks that top-level modules import only those above them in the table of the crate's docs, which lists the lowest
/// first.
pub(crate) fn violations(krate: &Crate) -> Vec<Violation> {
    let Some(root) = krate.files.first() else { return Vec::new() };
    let declared: Vec<_> =
        root.facts.mods.iter().filter(|decl| !decl.place.is_test && decl.place.inside.is_empty()).collect();
    let at_root = |text: String| Violation::new(root, 1, text);
    let table = table(&root.text);
    if table.is_empty() {
        let is_needed = matches!(krate.kind, Kind::Library | Kind::Main) && declared.len() > MODULES_WITHOUT_TABLE;
        return if is_needed { vec![at_root("has no table of its modules".into())] } else { Vec::new() };
    }
    let mut violations = Vec::new();
    for decl in declared.iter().filter(|decl| !table.contains(&decl.name)) {
        violations.push(Violation::new(
            root,
            decl.place.line,
            format!("`{}` is not in the table of modules", decl.name),
        ));
    }
    for name in table.iter().filter(|name| !declared.iter().any(|decl| decl.name == **name)) {
        violations.push(at_root(format!("`{name}` is in the table of modules, but there is no such module")));
    }
    let height = |file: usize| {
        let module = krate.files.get(file)?.module.first()?;
        table.iter().position(|name| name == module)
    };
    for import in imports(krate) {
        let (Some(from), Some(file)) = (height(import.from), krate.files.get(import.from)) else { continue };
        let problem = match height(import.to) {
            Some(to) if to > from => "of a higher module",
            None if import.to == 0 => "of the crate root",
            _ => continue,
        };
        violations.push(Violation::new(file, import.line, format!("imports `{}` {problem}", import.path)));
    }
    violations
}

/// Folders of the proxy's engine: the path of a message and the life of a client.
pub(crate) const ENGINE: [&str; 5] = ["transport", "upstream", "shard", "client", "link"];

/// Other modules that the engine imports: tools, the environment, and rules as plain values. No feature is among them.
pub(crate) const BELOW_ENGINE: [&str; 10] =
    ["clock", "bounded", "condition", "metrics", "telemetry", "net", "auth", "routing", "config", "limits"];

/// Checks that the engine, including its tests, imports exactly the modules below it. Other crates have no engine.
pub(crate) fn engine_imports(krate: &Crate) -> Vec<Violation> {
    let Some(root) = krate.files.first() else { return Vec::new() };
    let declares = |name: &&str| root.facts.mods.iter().any(|decl| decl.name == **name);
    if !ENGINE.iter().all(declares) {
        return Vec::new();
    }
    let module = |file: usize| Some(krate.files.get(file)?.module.first()?.as_str());
    let is_engine = |name: &str| ENGINE.contains(&name);
    let (mut violations, mut imported) = (Vec::new(), BTreeSet::new());
    for import in imports(krate) {
        let (Some(from), Some(to), Some(file)) = (module(import.from), module(import.to), krate.files.get(import.from))
        else {
            continue;
        };
        if !is_engine(from) || is_engine(to) {
            continue;
        }
        imported.insert(to);
        if !BELOW_ENGINE.contains(&to) {
            let text = format!("imports `{}`, which is not below the engine", import.path);
            violations.push(Violation::new(file, import.line, text));
        }
    }
    let unused = BELOW_ENGINE.iter().filter(|name| !imported.contains(**name));
    violations.extend(unused.map(|name| Violation::new(root, 1, format!("the engine imports `{name}` no longer"))));
    violations
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
