//! TypeScript types of hubs and of what their clients offer, so that the compiler checks the calls of a page.
//!
//! With the feature `typescript`. Types derive [`TS`] from [`ts_rs`], which reads serde's attributes; methods are added
//! by [`Hub::typed_method`](crate::Hub::typed_method), and a [`client_interface!`](macro@crate::client_interface) is
//! marked by `: TypeScript`. What is written is one file of types, without any code: the page's own connection gets the
//! type of the hub, in TypeScript or in JavaScript with JSDoc.
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
//! A page then says, in TypeScript,
//! `const board = new HubConnectionBuilder().withUrl("/board").build() as BoardConnection;` or, in JavaScript,
//! `/** @type {import("./board").BoardConnection} */`. Write the file in a test, which also fails when it is no longer
//! [current](TypeScript::check).
//!
//! The line `#[ts(crate = …)]` takes the place of a dependency on `ts-rs` of your own: the derive looks for that crate
//! else. Values of the SDK, such as [`Binary`](crate::value::Binary), have types, too.
//!
//! Whole numbers are `number`, whatever their size, as JSON has them. Names are serde's, or those of `#[ts(…)]`.

mod declarations;
mod signature;

use std::fmt::Write;
use std::path::Path;

pub use ts_rs::{self, TS};

#[doc(hidden)]
pub use declarations::{Declarations, TypeScriptError};
#[doc(hidden)]
pub use signature::{
    ClientMethod, MethodReply, Signature, SignatureFn, TypedHandler, TypedItem, TypedMethods, TypedParameter,
    TypedReply,
};

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
    /// [`client_interface!`](macro@crate::client_interface) that is marked by `: TypeScript`.
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
