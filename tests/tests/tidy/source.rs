//! A crate as rustc sees it: its root, and all files that the root reaches by module declarations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::token::Facts;

/// Path of a module, with the names of its parents; empty for the crate root.
pub(crate) type ModulePath = Vec<String>;

/// One source file of a crate.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Path from the root of the workspace.
    pub(crate) path: PathBuf,
    pub(crate) module: ModulePath,
    pub(crate) text: String,
    pub(crate) facts: Facts,
    /// Whether all of it is test code.
    pub(crate) is_test: bool,
}

impl SourceFile {
    /// Name without folder and extension.
    pub(crate) fn stem(&self) -> String {
        self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Crate with all its files.
#[derive(Debug)]
pub(crate) struct Crate {
    /// Folder of the package; for crates other than libraries followed by the path of the root.
    pub(crate) name: String,
    /// All files, beginning with the root.
    pub(crate) files: Vec<SourceFile>,
    pub(crate) kind: Kind,
}

/// Kind of a crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Library,
    /// Main program of a package.
    Main,
    /// Another program of a package.
    Tool,
    Test,
    Example,
}

/// Source of file contents: the disk, or a test.
pub(crate) type Texts<'a> = &'a dyn Fn(&Path) -> Option<String>;

impl Crate {
    /// Reads the crate of a root file.
    pub(crate) fn read(name: String, root: &Path, kind: Kind, texts: Texts<'_>) -> Result<Self, String> {
        let mut krate = Self { name, kind, files: Vec::new() };
        let folder = root.parent().unwrap_or(root);
        krate.add(root, folder, ModulePath::new(), kind == Kind::Test, texts)?;
        Ok(krate)
    }

    /// Creates a crate from texts, for tests of the rules. The first text is the root.
    pub(crate) fn planted(files: &[(&str, &str)]) -> Self {
        let texts: BTreeMap<_, _> =
            files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        let (root, _) = files.first().unwrap();
        Self::read("planted".into(), Path::new(root), Kind::Library, &|path| texts.get(path).cloned()).unwrap()
    }

    fn add(
        &mut self,
        path: &Path,
        folder: &Path,
        module: ModulePath,
        is_test: bool,
        texts: Texts<'_>,
    ) -> Result<(), String> {
        let text = texts(path).ok_or_else(|| format!("{} can't be read", path.display()))?;
        let facts = Facts::read(&text, is_test).map_err(|error| format!("{}: {error}", path.display()))?;
        let children: Vec<_> = facts
            .mods
            .iter()
            .filter(|decl| !decl.is_inline)
            .map(|decl| (decl.name.clone(), decl.place.clone(), decl.path.clone()))
            .collect();
        self.files.push(SourceFile { path: path.to_owned(), module: module.clone(), text, facts, is_test });
        for (name, place, given) in children {
            let module: ModulePath = module.iter().chain(&place.inside).chain([&name]).cloned().collect();
            let around: PathBuf = place.inside.iter().fold(folder.to_owned(), |folder, inside| folder.join(inside));
            let (file, inner) = match given {
                // Child modules of a file with a `path` attribute are beside that file.
                Some(given) => {
                    let file = normal(&path.parent().unwrap_or(path).join(given));
                    let inner = file.parent().unwrap_or(&around).to_owned();
                    (file, inner)
                }
                None if texts(&around.join(format!("{name}.rs"))).is_some() => {
                    (around.join(format!("{name}.rs")), around.join(&name))
                }
                None => (around.join(&name).join("mod.rs"), around.join(&name)),
            };
            self.add(&file, &inner, module, place.is_test, texts)?;
        }
        Ok(())
    }
}

/// Returns the path without `..` in it.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}
