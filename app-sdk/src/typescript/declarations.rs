//! Declarations of all types that a file needs, without duplicates.

use std::any::TypeId;
use std::collections::HashSet;
use std::path::PathBuf;

use ts_rs::{Config, TS, TypeVisitor};

use crate::value::{Binary, DateTimeOffset, Decimal, Guid, TimeSpan, Timestamp, Value};

/// Declarations of types, in the order of first use.
#[derive(Default)]
pub struct Declarations {
    seen: HashSet<TypeId>,
    /// Names of types and their declarations.
    declared: Vec<(String, String)>,
}

impl Declarations {
    /// Returns the name of a type, and declares the type with all types that it uses.
    pub fn name_of<T: TS + 'static + ?Sized>(&mut self) -> String {
        self.visit::<T>();
        match T::name(&config()).as_str() {
            "null" => "void".to_owned(),
            name => name.to_owned(),
        }
    }

    /// Returns the name of an argument's type; the unit type is `null`.
    pub fn argument_of<T: TS + 'static + ?Sized>(&mut self) -> String {
        self.visit::<T>();
        T::name(&config())
    }

    /// Returns the declarations, for a file that also declares `own_names`.
    pub(super) fn render(
        &self,
        own_names: impl Iterator<Item = String>,
    ) -> Result<impl Iterator<Item = &str>, TypeScriptError> {
        let mut names: HashSet<_> = own_names.collect();
        if let Some((name, _)) = self.declared.iter().find(|(name, _)| !names.insert(name.clone())) {
            return Err(TypeScriptError::DuplicateType(name.clone()));
        }
        Ok(self.declared.iter().map(|(_, declaration)| declaration.as_str()))
    }
}

impl TypeVisitor for Declarations {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        if !self.seen.insert(TypeId::of::<T>()) {
            return;
        }
        T::visit_generics(self);
        T::visit_dependencies(self);
        // In `ts_rs`, only derived types have an output file and thus a declaration.
        if T::output_path().is_some() {
            // A generic type is declared once for all parameters.
            if TypeId::of::<T>() != TypeId::of::<T::WithoutGenerics>()
                && !self.seen.insert(TypeId::of::<T::WithoutGenerics>())
            {
                return;
            }
            let docs = T::docs().map(|docs| docs.trim_end().to_owned() + "\n").unwrap_or_default();
            let declaration = T::decl(&config());
            self.declared.push((T::ident(&config()), format!("{docs}export {declaration}\n")));
        }
    }
}

impl std::fmt::Debug for Declarations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.declared.iter().map(|(name, _)| name)).finish()
    }
}

/// Integers of any size are numbers in JSON, so they are `number` here.
fn config() -> Config {
    Config::new().with_large_int("number")
}

/// Error of a file of TypeScript types.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypeScriptError {
    /// Two Rust types have the same name in TypeScript.
    #[error("two types of the file are named `{0}`: rename one by `#[ts(rename = \"…\")]`")]
    DuplicateType(String),
    /// The file differs from the generated text.
    #[error("{0} is out of date: write it again by `TypeScript::write`")]
    Outdated(PathBuf),
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
}

macro_rules! typed_values {
    ($($value:ty: $name:literal)*) => {
        $(impl TS for $value {
            type WithoutGenerics = Self;
            type OptionInnerType = Self;

            fn name(_: &Config) -> String {
                $name.to_owned()
            }

            fn inline(config: &Config) -> String {
                <Self as TS>::name(config)
            }
        })*
    };
}

typed_values! {
    Binary: "string | Uint8Array"
    DateTimeOffset: "string | [Date, number]"
    Decimal: "number | string"
    Guid: "string"
    TimeSpan: "string | number"
    Timestamp: "string | Date"
    Value: "unknown"
}
