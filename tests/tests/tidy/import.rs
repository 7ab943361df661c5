//! Imports between the files of a crate.
//!
//! A file imports another file if its code names an item that is *declared* there: in a `use`, or by a path in code,
//! macros or tests. Re-exports are followed to the declaration. So a user of a parent's `pub use` imports the declaring
//! file, not the parent, and the parent imports it only if its own code mentions the name. The declaration of a child
//! module is not an import.

use std::collections::BTreeMap;

use crate::source::{Crate, ModulePath, SourceFile};
use crate::token::{CodePath, Place, UseDecl};

/// Maximum length of a chain of re-exports.
const DEPTH_MAX: usize = 16;

/// An import of one file by another; both are indices into the files of the crate.
#[derive(Debug, Clone)]
pub(crate) struct Import {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) line: usize,
    /// Path as written in the code.
    pub(crate) path: String,
}

/// Returns all imports between different files.
pub(crate) fn imports(krate: &Crate) -> Vec<Import> {
    let scopes = Scopes::new(krate);
    let mut imports = Vec::new();
    for (from, file) in krate.files.iter().enumerate() {
        let uses = file.facts.uses.iter().filter(|decl| is_import(decl, file, krate));
        let uses = uses.map(|decl| (&decl.path, &decl.place));
        let paths = file.facts.paths.iter().filter(|path| scopes.is_local(&file.module, path));
        let paths = paths.map(|path| (&path.segments, &path.place));
        for (path, place) in uses.chain(paths) {
            let scope: ModulePath = file.module.iter().chain(&place.inside).cloned().collect();
            let to = scopes.resolve(&scope, path, DEPTH_MAX).filter(|to| *to != from);
            imports.extend(to.map(|to| Import { from, to, line: place.line, path: path.join("::") }));
        }
    }
    imports
}

/// Whether a `use` is an import, and not only a re-export.
fn is_import(decl: &UseDecl, file: &SourceFile, krate: &Crate) -> bool {
    if decl.alias == "*" || file.facts.mentioned.contains(&decl.alias) {
        return !(decl.alias == "*" && decl.is_public);
    }
    // Code does not mention a trait that it uses, nor a name that only child modules import from this file.
    let is_taken = |taken: &UseDecl| taken.path.contains(&"super".to_owned()) && taken.path.contains(&decl.alias);
    let others = krate.files.iter().filter(|other| other.module.len() > file.module.len());
    !decl.is_public && !others.into_iter().any(|other| other.facts.uses.iter().any(is_taken))
}

/// Module with its file, and its declared and imported names.
#[derive(Debug, Default)]
struct Scope<'a> {
    file: usize,
    uses: Vec<&'a UseDecl>,
    declared: Vec<&'a str>,
}

/// All modules of a crate, including inline modules.
#[derive(Debug)]
struct Scopes<'a>(BTreeMap<ModulePath, Scope<'a>>);

impl<'a> Scopes<'a> {
    fn new(krate: &'a Crate) -> Self {
        let mut scopes = Self(BTreeMap::new());
        for (at, file) in krate.files.iter().enumerate() {
            scopes.scope(&file.module, &Place::default(), at);
            for decl in file.facts.mods.iter().filter(|decl| decl.is_inline) {
                let module: ModulePath = file.module.iter().chain(&decl.place.inside).cloned().collect();
                let place = Place { inside: vec![decl.name.clone()], ..Place::default() };
                scopes.scope(&module, &place, at);
            }
            for decl in &file.facts.uses {
                scopes.scope(&file.module, &decl.place, at).uses.push(decl);
            }
            for declared in file.facts.types.iter().chain(&file.facts.values) {
                scopes.scope(&file.module, &declared.place, at).declared.push(&declared.name);
            }
        }
        scopes
    }

    fn scope(&mut self, module: &[String], place: &Place, file: usize) -> &mut Scope<'a> {
        let path = module.iter().chain(&place.inside).cloned().collect();
        self.0.entry(path).or_insert_with(|| Scope { file, ..Scope::default() })
    }

    /// Whether a path in code begins in this crate, and not with a name imported by a `use`.
    fn is_local(&self, module: &[String], path: &CodePath) -> bool {
        let Some(first) = path.segments.first() else { return false };
        let child = module.iter().chain(&path.place.inside).chain([first]).cloned().collect::<ModulePath>();
        matches!(first.as_str(), "crate" | "self" | "super") || self.0.contains_key(&child)
    }

    /// Returns the file with the declaration of a path; `None` for paths of other crates.
    fn resolve(&self, scope: &[String], path: &[String], depth: usize) -> Option<usize> {
        let (first, rest) = path.split_first()?;
        let depth = depth.checked_sub(1)?;
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => scope.to_vec(),
            "super" => scope.split_last()?.1.to_vec(),
            _ => return self.member(scope, first, rest, depth, false),
        };
        let mut rest = rest;
        while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
            (module, rest) = (module.split_last()?.1.to_vec(), after);
        }
        match rest.split_first() {
            Some((name, rest)) => self.member(&module, name, rest, depth, true),
            None => self.0.get(&module).map(|scope| scope.file),
        }
    }

    /// Resolves a name of a module: a child module, a re-export or a declaration. Without `is_inside`, an unknown name
    /// belongs to another crate.
    fn member(&self, module: &[String], name: &str, rest: &[String], depth: usize, is_inside: bool) -> Option<usize> {
        let scope = self.0.get(module)?;
        let child: ModulePath = module.iter().cloned().chain([name.to_owned()]).collect();
        if let Some(found) = self.0.get(&child) {
            return match rest.split_first() {
                Some((name, rest)) if name != "*" => self.member(&child, name, rest, depth, true),
                _ => Some(found.file),
            };
        }
        if scope.declared.contains(&name) {
            return Some(scope.file);
        }
        if let Some(decl) = scope.uses.iter().find(|decl| decl.alias == name) {
            // `use name;` of another crate names itself.
            let is_itself = decl.path.first().is_some_and(|first| first == name);
            let path: Vec<_> = decl.path.iter().chain(rest).cloned().collect();
            return if is_itself { None } else { self.resolve(module, &path, depth.checked_sub(1)?) };
        }
        let globs = scope.uses.iter().filter(|decl| decl.alias == "*");
        let through = globs.filter_map(|decl| {
            let path: Vec<_> = decl.path.iter().cloned().chain([name.to_owned()]).collect();
            self.resolve_declared(module, &path, depth.checked_sub(1)?)
        });
        through.into_iter().next().or(is_inside.then_some(scope.file))
    }

    /// Like `resolve`, but only if the last name is declared there.
    fn resolve_declared(&self, scope: &[String], path: &[String], depth: usize) -> Option<usize> {
        let (name, around) = path.split_last()?;
        let file = self.resolve(scope, around, depth)?;
        let is_declared = self.0.values().any(|scope| scope.file == file && scope.declared.contains(&name.as_str()));
        is_declared.then_some(file)
    }
}
