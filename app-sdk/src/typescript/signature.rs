//! Signatures of methods, read from the types of their functions.

use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ts_rs::TS;

use super::declarations::Declarations;
use crate::call::FromCall;
use crate::call::marker::{ViaArgument, ViaCall, ViaContext, ViaFallible, ViaOption, ViaUpload};
use crate::context::upload_stream::UploadStream;
use crate::error::HubError;
use crate::handler::arity::for_each_arity;
use crate::handler::marker::{ViaResult, ViaStream, ViaStreamResult, ViaValue};
use crate::handler::{Handler, IntoItem, IntoReply};

/// Reads the signature of a method.
pub type SignatureFn = fn(&mut Declarations) -> Signature;

/// Types of a method, as its callers in TypeScript see them.
#[derive(Debug)]
pub struct Signature {
    arguments: Vec<String>,
    reply: MethodReply,
}

/// Type of a method's reply.
#[derive(Debug)]
pub enum MethodReply {
    /// One value of this type.
    Value(String),
    /// A stream of items of this type.
    Stream(String),
}

/// A method that clients offer.
#[derive(Debug)]
pub struct ClientMethod {
    name: &'static str,
    arguments: Vec<(&'static str, String)>,
    result: Option<String>,
}

/// Methods whose types in TypeScript may be known: those of a [`Hub`](crate::Hub).
pub trait TypedMethods {
    #[doc(hidden)]
    fn signatures(&self) -> impl Iterator<Item = (&str, Option<SignatureFn>)>;
}

/// A [`Handler`] all of whose arguments and results have types in TypeScript ([`TS`]).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no hub method with types in TypeScript",
    note = "it must be a hub method, and all its arguments and results must derive `trunkline::typescript::TS`",
    note = "`#[trunkline::debug_method(typescript)]` on the function says which of these it is"
)]
pub trait TypedHandler<S, M>: Handler<S, M> {
    #[doc(hidden)]
    fn signature(declarations: &mut Declarations) -> Signature;
}

/// A parameter of a method whose type in TypeScript is known, or that takes nothing from the client.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no type in TypeScript",
    label = "neither an extractor nor an argument with a type in TypeScript",
    note = "derive `trunkline::typescript::TS` for it, beside `serde::Deserialize`"
)]
pub trait TypedParameter<S, M>: FromCall<S, M> {
    #[doc(hidden)]
    fn argument(_declarations: &mut Declarations) -> Option<String> {
        None
    }
}

/// A reply whose type in TypeScript is known.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no type in TypeScript",
    label = "a result without a type in TypeScript",
    note = "derive `trunkline::typescript::TS` for it, beside `serde::Serialize`"
)]
pub trait TypedReply<M>: IntoReply<M> {
    #[doc(hidden)]
    fn reply(declarations: &mut Declarations) -> MethodReply;
}

/// An item of a stream whose type in TypeScript is known.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no type in TypeScript",
    label = "an item without a type in TypeScript",
    note = "derive `trunkline::typescript::TS` for it, beside `serde::Serialize`"
)]
pub trait TypedItem<M>: IntoItem<M> {
    #[doc(hidden)]
    fn item(declarations: &mut Declarations) -> String;
}

/// Checks that a parameter has a type in TypeScript, or needs none: written by `#[debug_method(typescript)]`.
pub fn check_parameter<T: TypedParameter<S, M>, S, M>() {}

/// Checks that a result has a type in TypeScript.
pub fn check_reply<T: TypedReply<M>, M>() {}

impl<S, T: FromCall<S, ViaCall>> TypedParameter<S, ViaCall> for T {}
impl<S, T: FromCall<S, ViaContext>> TypedParameter<S, ViaContext> for T {}
impl<S, T: FromCall<S, ViaOption>> TypedParameter<S, ViaOption> for T {}
impl<S, T: FromCall<S, ViaFallible>> TypedParameter<S, ViaFallible> for T {}

impl<S: Send, T: DeserializeOwned + Send + TS + 'static> TypedParameter<S, ViaArgument> for T {
    fn argument(declarations: &mut Declarations) -> Option<String> {
        Some(declarations.argument_of::<T>())
    }
}

#[diagnostic::do_not_recommend]
impl<S: Send, T: TS + Send + 'static> TypedParameter<S, ViaUpload> for UploadStream<T> {
    fn argument(declarations: &mut Declarations) -> Option<String> {
        Some(format!("Subject<{}>", declarations.argument_of::<T>()))
    }
}

impl<T: Serialize + TS + 'static> TypedReply<ViaValue> for T {
    fn reply(declarations: &mut Declarations) -> MethodReply {
        MethodReply::Value(declarations.name_of::<T>())
    }
}

impl<T: Serialize + TS + 'static> TypedReply<ViaResult> for Result<T, HubError> {
    fn reply(declarations: &mut Declarations) -> MethodReply {
        MethodReply::Value(declarations.name_of::<T>())
    }
}

impl<S, M> TypedReply<ViaStream<M>> for S
where
    S: Stream + Send + 'static,
    S::Item: TypedItem<M>,
{
    fn reply(declarations: &mut Declarations) -> MethodReply {
        MethodReply::Stream(S::Item::item(declarations))
    }
}

impl<S, M> TypedReply<ViaStreamResult<M>> for Result<S, HubError>
where
    S: Stream + Send + 'static,
    S::Item: TypedItem<M>,
{
    fn reply(declarations: &mut Declarations) -> MethodReply {
        MethodReply::Stream(S::Item::item(declarations))
    }
}

impl<T: Serialize + TS + 'static> TypedItem<ViaValue> for T {
    fn item(declarations: &mut Declarations) -> String {
        declarations.argument_of::<T>()
    }
}

impl<T: Serialize + TS + 'static> TypedItem<ViaResult> for Result<T, HubError> {
    fn item(declarations: &mut Declarations) -> String {
        declarations.argument_of::<T>()
    }
}

macro_rules! function_as_typed_handler {
    ($(($marker:ident, $parameter:ident, $name:ident)),*) => {
        impl<S, F, Fut, R, RM, $($marker, $parameter,)*> TypedHandler<S, (RM, $($marker, $parameter,)*)> for F
        where
            F: Fn($($parameter),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: TypedReply<RM>,
            S: Send + 'static,
            $($parameter: TypedParameter<S, $marker> + Send + 'static,)*
        {
            fn signature(declarations: &mut Declarations) -> Signature {
                let arguments: [Option<String>; _] = [$($parameter::argument(declarations)),*];
                Signature { arguments: arguments.into_iter().flatten().collect(), reply: R::reply(declarations) }
            }
        }
    };
}
for_each_arity!(function_as_typed_handler);

impl Signature {
    /// Whether the method answers with a stream.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.reply, MethodReply::Stream(_))
    }

    /// Whether the client gives the method a stream.
    pub(super) fn takes_upload(&self) -> bool {
        self.arguments.iter().any(|argument| argument.starts_with("Subject<"))
    }

    /// Type of the method as a function.
    pub(super) fn function(&self) -> String {
        let arguments = self.arguments.iter().enumerate().map(|(at, name)| format!("argument{}: {name}", at + 1));
        let arguments: Vec<_> = arguments.collect();
        let (MethodReply::Value(reply) | MethodReply::Stream(reply)) = &self.reply;
        format!("({}) => {reply}", arguments.join(", "))
    }
}

impl ClientMethod {
    /// A method of a client that is only called.
    #[must_use]
    pub fn called(name: &'static str, arguments: Vec<(&'static str, String)>) -> Self {
        Self { name, arguments, result: None }
    }

    /// A method of a client whose result is awaited.
    #[must_use]
    pub fn asked(name: &'static str, arguments: Vec<(&'static str, String)>, result: String) -> Self {
        Self { name, arguments, result: Some(result) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Type of the method as a function.
    pub(super) fn function(&self) -> String {
        let arguments = self.arguments.iter().map(|(name, of)| format!("{}: {of}", parameter_name(name)));
        let arguments: Vec<_> = arguments.collect();
        let result = match &self.result {
            Some(result) => format!("{result} | Promise<{result}>"),
            None => "void".to_owned(),
        };
        format!("({}) => {result}", arguments.join(", "))
    }
}

/// Words that no parameter may be named by, in a module of JavaScript; Rust takes some of them, such as `new`.
const RESERVED: &str = "arguments break case catch class const continue debugger default delete do else enum eval export \
    extends false finally for function if implements import in instanceof interface let new null package private \
    protected public return static super switch throw true try typeof var void while with yield";

/// Name of a parameter as TypeScript has names: `ends_at` as `endsAt`, and `new` as `new_`.
fn parameter_name(name: &str) -> String {
    let mut words = name.trim_start_matches("r#").split('_').filter(|word| !word.is_empty());
    let first = words.next().unwrap_or("argument").to_owned();
    let camel = words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        name + &initial.to_uppercase() + rest
    });
    let is_reserved = RESERVED.split(' ').any(|word| word == camel);
    if is_reserved { camel + "_" } else { camel }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parameters_are_those_that_typescript_takes() {
        let given = ["lot", "ends_at", "new", "r#type", "_left_ms", "a_b_c", "default"];
        let made = ["lot", "endsAt", "new_", "type", "leftMs", "aBC", "default_"];
        assert_eq!(given.map(parameter_name), made);
        let renamed = ClientMethod::called("Renamed", vec![("old", "string".into()), ("new", "string".into())]);
        assert_eq!(renamed.function(), "(old: string, new_: string) => void");
    }
}
