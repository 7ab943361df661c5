//! TypeScript types of hubs and client methods, so that the compiler checks the calls of a page.
//!
//! Requires the feature `typescript`. Types derive [`TS`], which reads serde's attributes; methods are added with
//! [`Hub::typed_method`](crate::Hub::typed_method), and a [`client_interface!`](macro@crate::client_interface) is
//! marked with `: TypeScript`. The output is one file of types without code: the page's own connection gets the type
//! of the hub, in TypeScript or in JavaScript with JSDoc.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use trunkline::typescript::{TS, TypeScript};
//! use trunkline::{Hub, HubError, Receivers};
//!
//! #[derive(Serialize, Deserialize, TS)]
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
//! for line in [
//!     r#"export type Note = { id: number, text: string, doneBy: string | null, };"#,
//!     r#"export interface BoardMethods {"#,
//!     r#"  "Add": (argument1: string) => Note;"#,
//!     r#"export interface BoardStreams {"#,
//!     r#"  "All": () => Note;"#,
//!     r#"export interface BoardHandlers {"#,
//!     r#"  "Confirm": (question: string) => boolean | Promise<boolean>;"#,
//! ] {
//!     assert!(types.contains(line), "{types}");
//! }
//! # Ok(()) }
//! ```
//!
//! A page then uses, in TypeScript, `const board = new HubConnectionBuilder().withUrl("/board").build() as
//! BoardConnection;` or, in JavaScript, `/** @type {import("./board").BoardConnection} */`. Write the file in a test,
//! which also fails when the file is no longer [current](TypeScript::check).
//!
//! The derive is that of [`ts_rs`], configured so that the app needs no dependency on that crate. Values of the SDK,
//! such as [`Binary`](crate::value::Binary), have types too. Integers of any size are `number`, as in JSON. Names are
//! as set by serde or `#[ts(…)]`.

mod declarations;
mod signature;

use std::fmt::Write;
use std::path::Path;

pub use derive::TS;
#[doc(hidden)]
pub use trunkline_macros::without_item;
pub use ts_rs;

#[doc(hidden)]
pub use declarations::{Declarations, TypeScriptError};
#[doc(hidden)]
pub use signature::{
    ClientMethod, MethodReply, Signature, SignatureFn, TypedHandler, TypedItem, TypedMethods, TypedParameter,
    TypedReply, check_parameter, check_reply,
};

/// The trait and its derive under one name.
mod derive {
    pub use trunkline_macros::TS;
    // Imported by name, the trait would bring its crate's own derive along; a glob import has lower priority than our
    // derive.
    pub use ts_rs::*;
}

/// Builder of one file of TypeScript types: hubs, client methods, and all types that these use.
#[derive(Debug, Default)]
#[must_use = "nothing is written until it is rendered"]
pub struct TypeScript {
    declarations: Declarations,
    connections: Vec<ConnectionType>,
}

#[derive(Debug)]
struct ConnectionType {
    name: String,
    methods: Vec<(String, Option<Signature>)>,
    handlers: Vec<ClientMethod>,
}

const IMPORTS: [&str; 3] = ["HubConnection", "IStreamResult", "Subject"];

/// Function type for an untyped method.
const UNTYPED: &str = "(...args: unknown[]) => unknown";

/// Members of a connection, generic over the method name, so that a compiler error points at the wrong argument. With
/// one overload per method, the error would only mention the last overload.
const METHOD_MEMBERS: &str = "  invoke<M extends keyof {name}Methods>(
    method: M, ...args: Parameters<{name}Methods[M]>
  ): Promise<ReturnType<{name}Methods[M]>>;
  send<M extends keyof {name}Methods>(method: M, ...args: Parameters<{name}Methods[M]>): Promise<void>;
";

/// Members of a connection to a hub with streaming methods.
const STREAM_MEMBERS: &str = "  stream<M extends keyof {name}Streams>(
    method: M, ...args: Parameters<{name}Streams[M]>
  ): IStreamResult<ReturnType<{name}Streams[M]>>;
";

/// Members of a connection with client methods.
const HANDLER_MEMBERS: &str = "  on<M extends keyof {name}Handlers>(method: M, handler: {name}Handlers[M]): void;
  off<M extends keyof {name}Handlers>(method: M, handler?: {name}Handlers[M]): void;
";

impl TypeScript {
    /// Creates a file without types.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the methods of a hub as the type `{name}Connection`. Methods not added with
    /// [`typed_method`](crate::Hub::typed_method) take and return `unknown`.
    pub fn hub(mut self, name: &str, hub: &impl TypedMethods) -> Self {
        let methods: Vec<_> = hub
            .signatures()
            .map(|(method, signature)| (method.to_owned(), signature.map(|sign| sign(&mut self.declarations))))
            .collect();
        self.connection(name).methods.extend(methods);
        self
    }

    /// Adds client methods to the type `{name}Connection`: `<Receivers as Interface>::typescript` of a
    /// [`client_interface!`](macro@crate::client_interface) marked with `: TypeScript`.
    pub fn client(mut self, name: &str, interface: impl FnOnce(&mut Declarations) -> Vec<ClientMethod>) -> Self {
        let handlers = interface(&mut self.declarations);
        self.connection(name).handlers.extend(handlers);
        self
    }

    /// Generates the text of the file.
    ///
    /// # Errors
    /// If two types have the same name.
    pub fn render(&self) -> Result<String, TypeScriptError> {
        let imports: Vec<_> = IMPORTS.into_iter().filter(|import| self.uses(import)).collect();
        let own_names = self.connections.iter().flat_map(ConnectionType::names);
        let declarations = self.declarations.render(own_names.chain(imports.iter().copied().map(str::to_owned)))?;
        let mut text = String::from("// Types of hubs, made by trunkline::typescript. Do not edit.\n");
        if !imports.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "import type {{ {} }} from \"@microsoft/signalr\";", imports.join(", "));
        }
        for declaration in declarations {
            text.push('\n');
            text.push_str(declaration);
        }
        for connection in &self.connections {
            let _ = connection.render(&mut text);
        }
        Ok(text)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If two types have the same name, or the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), TypeScriptError> {
        let path = path.as_ref();
        std::fs::write(path, self.render()?).map_err(|source| TypeScriptError::File { path: path.to_owned(), source })
    }

    /// Checks in a test that the file is current.
    ///
    /// # Errors
    /// If the file differs from the generated text or cannot be read.
    pub fn check(&self, path: impl AsRef<Path>) -> Result<(), TypeScriptError> {
        let path = path.as_ref();
        let present =
            std::fs::read_to_string(path).map_err(|source| TypeScriptError::File { path: path.to_owned(), source })?;
        match present == self.render()? {
            true => Ok(()),
            false => Err(TypeScriptError::Outdated(path.to_owned())),
        }
    }

    /// Whether the file uses a type of the client package. Compilers may refuse unused imports.
    fn uses(&self, import: &str) -> bool {
        self.connections.iter().any(|connection| match import {
            "IStreamResult" => !connection.streams().is_empty(),
            "Subject" => connection.signatures().any(Signature::takes_upload),
            _ => true,
        })
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
    fn names(&self) -> impl Iterator<Item = String> {
        ["Methods", "Streams", "Handlers", "Connection"].into_iter().map(|part| format!("{}{part}", self.name))
    }

    fn signatures(&self) -> impl Iterator<Item = &Signature> {
        self.methods.iter().filter_map(|(_, signature)| signature.as_ref())
    }

    /// Non-streaming methods as functions. Includes untyped methods, which may also stream.
    fn invoked(&self) -> Vec<(&str, String)> {
        self.functions(|signature| !signature.is_streaming())
    }

    fn streams(&self) -> Vec<(&str, String)> {
        self.functions(Signature::is_streaming)
    }

    fn functions(&self, is_wanted: impl Fn(&Signature) -> bool) -> Vec<(&str, String)> {
        let wanted = self.methods.iter().filter(|(_, signature)| signature.as_ref().is_none_or(&is_wanted));
        let function =
            |signature: &Option<Signature>| signature.as_ref().map_or(UNTYPED.to_owned(), Signature::function);
        wanted.map(|(method, signature)| (method.as_str(), function(signature))).collect()
    }

    fn render(&self, text: &mut String) -> std::fmt::Result {
        let name = &self.name;
        let handlers: Vec<_> = self.handlers.iter().map(|method| (method.name, method.function())).collect();
        let parts = [
            (
                "Methods",
                "Methods of the hub, as functions of their arguments that return their results",
                self.invoked(),
            ),
            (
                "Streams",
                "Methods of the hub that stream, as functions of their arguments that return an item",
                self.streams(),
            ),
            ("Handlers", "Methods that clients offer the hub", handlers),
        ];
        for (part, meaning, functions) in parts.iter().filter(|(.., functions)| !functions.is_empty()) {
            writeln!(text, "\n/** {meaning}. */\nexport interface {name}{part} {{")?;
            for (method, function) in functions {
                writeln!(text, "  {method:?}: {function};")?;
            }
            writeln!(text, "}}")?;
        }
        let [methods, streams, handlers] = parts.map(|(.., functions)| !functions.is_empty());
        // Without a declared client interface, handlers keep the types of the package.
        let untyped = if handlers { r#" | "on" | "off""# } else { "" };
        writeln!(text, "\n/** A connection to the hub `{name}`. */")?;
        writeln!(text, "export interface {name}Connection")?;
        writeln!(text, r#"  extends Omit<HubConnection, "invoke" | "send" | "stream"{untyped}> {{"#)?;
        let members = [(methods, METHOD_MEMBERS), (streams, STREAM_MEMBERS), (handlers, HANDLER_MEMBERS)];
        for (_, members) in members.into_iter().filter(|(is_there, _)| *is_there) {
            text.push_str(&members.replace("{name}", name));
        }
        writeln!(text, "}}")
    }
}
