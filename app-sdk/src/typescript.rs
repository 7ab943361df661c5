//! TypeScript types of hubs and of what their clients offer, so that the compiler checks the calls of a page.
//!
//! With the feature `typescript`. Types derive [`TS`] from [`ts_rs`], which reads serde's attributes; methods are added by
//! [`Hub::typed_method`](crate::Hub::typed_method), and a [`client_interface!`](crate::client_interface) is marked by
//! `: TypeScript`. What is written is one file of types, without any code: the page's own connection gets the type of the
//! hub, in TypeScript or in JavaScript with JSDoc.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use trunkline::typescript::{TS, TypeScript};
//! use trunkline::{Hub, HubError, Receivers};
//!
//! #[derive(Serialize, Deserialize, TS)]
//! #[ts(crate = "trunkline::typescript::ts_rs")]
//! #[serde(rename_all = "camelCase")]
//! struct Note { id: u32, text: String, done_by: Option<String> }
//!
//! trunkline::client_interface! {
//!     trait BoardClient: TypeScript {
//!         fn noted(note: &Note) = "Noted";
//!         fn confirm(question: &str) -> bool = "Confirm";
//!     }
//! }
//!
//! async fn add(text: String) -> Result<Note, HubError> {
//!     Ok(Note { id: 1, text, done_by: None })
//! }
//!
//! async fn all() -> impl futures_util::Stream<Item = Note> {
//!     futures_util::stream::empty()
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub: Hub = Hub::new("/board").typed_method("Add", add).typed_method("All", all);
//! let types = TypeScript::new().hub("Board", &hub).client("Board", <Receivers as BoardClient>::typescript).render()?;
//! assert!(types.contains("export type Note = { id: number, text: string, doneBy: string | null, };"));
//! assert!(types.contains(r#"invoke(method: "Add", argument1: string): Promise<Note>;"#));
//! assert!(types.contains(r#"stream(method: "All"): IStreamResult<Note>;"#));
//! assert!(types.contains(r#"on(method: "Confirm", handler: (question: string) => boolean | Promise<boolean>): void;"#));
//! # Ok(()) }
//! ```
//!
//! A page then says, in TypeScript, `const board = new HubConnectionBuilder().withUrl("/board").build() as BoardConnection;`
//! or, in JavaScript, `/** @type {import("./board").BoardConnection} */`. Write the file in a test, which also fails when
//! it is no longer [current](TypeScript::check).
//!
//! The line `#[ts(crate = …)]` takes the place of a dependency on `ts-rs` of your own: the derive looks for that crate else.
//! Values of the SDK, such as [`Binary`](crate::value::Binary), have types, too.
//!
//! Whole numbers are `number`, whatever their size, as JSON has them. Names are serde's, or those of `#[ts(…)]`.

mod declarations;
mod signature;
mod value_type;

use std::fmt::Write;
use std::path::{Path, PathBuf};

pub use ts_rs::{self, TS};

#[doc(hidden)]
pub use declarations::Declarations;
#[doc(hidden)]
pub use signature::{ClientMethod, MethodReply, Signature, SignatureFn};
pub use signature::{TypedHandler, TypedItem, TypedMethods, TypedParameter, TypedReply};

/// Builder of one file of TypeScript types: hubs, what their clients offer, and all types that these use.
#[derive(Debug, Default)]
#[must_use = "nothing is written until it is rendered"]
pub struct TypeScript {
    declarations: Declarations,
    connections: Vec<ConnectionType>,
}

/// Type of a page's connection to one hub.
#[derive(Debug)]
struct ConnectionType {
    name: String,
    methods: Vec<(String, Option<Signature>)>,
    handlers: Vec<ClientMethod>,
}

/// Error of a file of TypeScript types.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypeScriptError {
    /// Two types of Rust have one name in TypeScript.
    #[error("two types are named `{0}`: give one of them `#[ts(rename = \"…\")]`")]
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

impl TypeScript {
    /// A file without types.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the methods of a hub, as the type `{name}Connection`. Methods that were not added by
    /// [`typed_method`](crate::Hub::typed_method) take and return `unknown`.
    pub fn hub(mut self, name: &str, hub: &impl TypedMethods) -> Self {
        let methods: Vec<_> = hub
            .signatures()
            .map(|(method, signature)| (method.to_owned(), signature.map(|sign| sign(&mut self.declarations))))
            .collect();
        self.connection(name).methods.extend(methods);
        self
    }

    /// Adds what clients offer to the type `{name}Connection`: `<Receivers as Interface>::typescript` of a
    /// [`client_interface!`](crate::client_interface) that is marked by `: TypeScript`.
    pub fn client(mut self, name: &str, interface: impl FnOnce(&mut Declarations) -> Vec<ClientMethod>) -> Self {
        let handlers = interface(&mut self.declarations);
        self.connection(name).handlers.extend(handlers);
        self
    }

    /// Makes the text of the file.
    ///
    /// # Errors
    /// When two types have the same name.
    pub fn render(&self) -> Result<String, TypeScriptError> {
        let mut text = String::from(
            "// Types of hubs, made by trunkline::typescript. Do not edit.\n\
             import type { HubConnection, IStreamResult, Subject } from \"@microsoft/signalr\";\n",
        );
        for declaration in self.declarations.render()? {
            text.push('\n');
            text.push_str(declaration);
        }
        for connection in &self.connections {
            text.push('\n');
            // A text takes everything that is written to it.
            let _ = connection.render(&mut text);
        }
        Ok(text)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When two types have the same name, or the system refuses the file.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), TypeScriptError> {
        let path = path.as_ref();
        std::fs::write(path, self.render()?).map_err(|source| TypeScriptError::File { path: path.to_owned(), source })
    }

    /// Checks that the file is current, for a test.
    ///
    /// # Errors
    /// When it differs from what would be written, or can't be read.
    pub fn check(&self, path: impl AsRef<Path>) -> Result<(), TypeScriptError> {
        let path = path.as_ref();
        let present =
            std::fs::read_to_string(path).map_err(|source| TypeScriptError::File { path: path.to_owned(), source })?;
        match present == self.render()? {
            true => Ok(()),
            false => Err(TypeScriptError::Outdated(path.to_owned())),
        }
    }

    fn connection(&mut self, name: &str) -> &mut ConnectionType {
        let at = self.connections.iter().position(|connection| connection.name == name);
        let at = at.unwrap_or(self.connections.len());
        if at == self.connections.len() {
            self.connections.push(ConnectionType { name: name.to_owned(), methods: Vec::new(), handlers: Vec::new() });
        }
        #[expect(clippy::indexing_slicing, reason = "it was found or pushed just now")]
        &mut self.connections[at]
    }
}

impl ConnectionType {
    fn render(&self, text: &mut String) -> std::fmt::Result {
        let name = &self.name;
        writeln!(text, "/** A connection to the hub `{name}`. */")?;
        writeln!(
            text,
            "export interface {name}Connection extends Omit<HubConnection, \"invoke\" | \"send\" | \"stream\" | \"on\"> {{"
        )?;
        for (method, signature) in &self.methods {
            match signature {
                Some(signature) => signature.render(method, text)?,
                None => {
                    writeln!(text, "  invoke(method: \"{method}\", ...args: unknown[]): Promise<unknown>;")?;
                    writeln!(text, "  send(method: \"{method}\", ...args: unknown[]): Promise<void>;")?;
                    writeln!(text, "  stream(method: \"{method}\", ...args: unknown[]): IStreamResult<unknown>;")?;
                }
            }
        }
        for handler in &self.handlers {
            handler.render(text)?;
        }
        writeln!(text, "}}")
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::value::{Binary, Guid, Timestamp};
    use crate::{Context, Hub, HubError, Methods, Receivers, UploadStream};

    #[derive(Serialize, Deserialize, TS)]
    #[serde(tag = "kind", rename_all = "camelCase")]
    enum Shape {
        Circle { radius: f64 },
        Group { shapes: Vec<Shape>, made_by: Author },
    }

    #[derive(Serialize, Deserialize, TS)]
    struct Author {
        name: String,
        id: u64,
    }

    crate::client_interface! {
        #[expect(dead_code, reason = "only its types are of interest here")]
        trait DrawingClient: TypeScript {
            fn drawn(shape: &Shape, by: Option<&str>) = "Drawn";
            fn confirm(question: String) -> bool = "Confirm";
            fn cleared();
        }
    }

    async fn draw(_: Context, _shape: Shape, _note: Option<String>) -> Result<u64, HubError> {
        Ok(1)
    }

    async fn undo() {}

    async fn stamp(_pixels: Binary, _taken: Option<Timestamp>) -> Guid {
        Guid::from_bytes([0; 16])
    }

    async fn history(_from: u64) -> Result<impl futures_util::Stream<Item = Result<Shape, HubError>>, HubError> {
        Ok(futures_util::stream::empty())
    }

    async fn sum(_numbers: UploadStream<f64>, _scale: f64) -> f64 {
        0.0
    }

    fn drawing() -> Hub {
        let undoing = Methods::new().typed_method("Undo", undo).require_user();
        Hub::new("/drawing")
            .typed_method("Draw", draw)
            .methods(undoing)
            .typed_method("History", history)
            .typed_method("Sum", sum)
            .typed_method("Stamp", stamp)
            .method("Plain", undo)
    }

    fn types() -> TypeScript {
        TypeScript::new().hub("Drawing", &drawing()).client("Drawing", <Receivers as DrawingClient>::typescript)
    }

    #[test]
    fn methods_and_handlers_have_the_types_of_their_functions() {
        let text = types().render().unwrap();
        for line in [
            "export type Author = { name: string, id: number, };",
            "  invoke(method: \"Draw\", argument1: Shape, argument2: string | null): Promise<number>;",
            "  send(method: \"Draw\", argument1: Shape, argument2: string | null): Promise<void>;",
            "  invoke(method: \"Undo\"): Promise<void>;",
            "  stream(method: \"History\", argument1: number): IStreamResult<Shape>;",
            "  invoke(method: \"Sum\", argument1: Subject<number>, argument2: number): Promise<number>;",
            "  invoke(method: \"Stamp\", argument1: string | Uint8Array, argument2: string | Date | null): Promise<string>;",
            "  invoke(method: \"Plain\", ...args: unknown[]): Promise<unknown>;",
            "  on(method: \"Drawn\", handler: (shape: Shape, by: string | null) => void): void;",
            "  on(method: \"Confirm\", handler: (question: string) => boolean | Promise<boolean>): void;",
            "  on(method: \"cleared\", handler: () => void): void;",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\nin\n{text}");
        }
        assert_eq!(text.matches("export type Shape").count(), 1, "{text}");
        assert_eq!(text.matches("export interface").count(), 1, "{text}");
    }

    #[test]
    fn a_file_is_checked_for_being_current() {
        let folder = std::env::temp_dir().join(trunkline_protocol::id::random_id());
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("drawing.ts");
        assert!(matches!(types().check(&file), Err(TypeScriptError::File { .. })));
        types().write(&file).unwrap();
        types().check(&file).unwrap();
        assert!(matches!(TypeScript::new().check(&file), Err(TypeScriptError::Outdated(_))));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn two_types_of_one_name_are_an_error() {
        mod other {
            #[derive(serde::Deserialize, super::TS)]
            pub(super) struct Author {
                pub(super) nick: String,
            }
        }
        async fn sign(author: other::Author) {
            drop(author.nick);
        }
        let clash = types().hub("Other", &Hub::<()>::new("/other").typed_method("Sign", sign)).render();
        assert!(matches!(clash, Err(TypeScriptError::DuplicateType(name)) if name == "Author"));
    }
}
