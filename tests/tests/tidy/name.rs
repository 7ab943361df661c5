//! Names of types and files, which occur once in a crate.

use std::collections::BTreeMap;

use crate::source::{Crate, Kind};
use crate::violation::Violation;

/// Checks that no type name is declared twice, except for associated types and in tests.
pub(crate) fn types(krate: &Crate) -> Vec<Violation> {
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    let mut violations = Vec::new();
    for file in &krate.files {
        for declared in file.facts.types.iter().filter(|declared| !declared.place.is_test) {
            let here = format!("{}:{}", file.path.display(), declared.place.line);
            match known.get(declared.name.as_str()) {
                Some(there) => {
                    let text = format!("the type name `{}` is taken: {there}", declared.name);
                    violations.push(Violation::new(file, declared.place.line, text));
                }
                None => drop(known.insert(&declared.name, here)),
            }
        }
    }
    violations
}

/// Checks that no file name occurs twice, except for roots and files of unit tests.
pub(crate) fn files(krate: &Crate) -> Vec<Violation> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut violations = Vec::new();
    for file in krate.files.iter().skip(1).filter(|file| krate.kind == Kind::Test || !file.is_test) {
        if let Some(there) = known.insert(file.stem(), file.path.display().to_string()) {
            violations.push(Violation::new(file, 1, format!("the file name is taken: {there}")));
        }
    }
    violations
}
