//! Declarations of all types that a file needs, each once.

use std::any::TypeId;
use std::collections::HashSet;
use std::path::PathBuf;

use ts_rs::{Config, TS, TypeVisitor};

use crate::value::{Binary, DateTimeOffset, Decimal, Guid, TimeSpan, Timestamp, Value};

/// Declarations of types, in the order in which they were first used.
#[derive(Default)]
pub struct Declarations {
    seen: HashSet<TypeId>,
    /// Names of types, and their declarations.
    declared: Vec<(String, String)>,
}

impl Declarations {
    /// Name of a type, which is declared with all types that it uses.
    pub fn name_of<T: TS + 'static + ?Sized>(&mut self) -> String {
        self.visit::<T>();
        match T::name(&config()).as_str() {
            "null" => "void".to_owned(),
            name => name.to_owned(),
        }
    }

    /// Name of an argument's type; nothing is `null` there.
    pub fn argument_of<T: TS + 'static + ?Sized>(&mut self) -> String {
        self.visit::<T>();
        T::name(&config())
    }

    /// The declarations, for a file that has names of its own besides.
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
        // Only derived types have a file of their own in `ts_rs`, and with it a declaration.
        if T::output_path().is_some() {
            // A generic type is declared once, whatever its parameters are.
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

/// Whole numbers of any size are numbers in JSON, so that is what pages get.
fn config() -> Config {
    Config::new().with_large_int("number")
}

/// Error of a file of TypeScript types.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypeScriptError {
    /// Two types of Rust have one name in TypeScript.
    #[error("two types of the file are named `{0}`: give one of them `#[ts(rename = \"…\")]`")]
    DuplicateType(String),
    /// The file is not the one that the hubs make now.
    #[error("{0} is not current: write it again, by `TypeScript::write`")]
    Outdated(PathBuf),
    /// The file can't be read or written.
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
