//! Calls of methods and hooks, and the extraction of parameters from them.
//!
//! ```text
//!  call ──► parameter by parameter ─┬─ an extractor: made from the connection and the hub's state
//!                                   ├─ an argument: the next one that the client gave
//!                                   └─ an upload: the client's next stream
//! ```

mod context_extractors;
#[doc(hidden)]
pub mod part;
pub(crate) mod rehomed;
pub(crate) mod restored;

use std::future::{self, Future};

use bytestring::ByteString;
use serde::de::DeserializeOwned;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Payload, PayloadError};

use crate::connection::ConnectionClose;
use crate::context::Context;
use crate::context::upload_stream::UploadStream;
use crate::error::{HubError, text};
use crate::naming::Codec;

/// Markers that tell apart the ways to make a parameter; the compiler infers which one is meant.
#[doc(hidden)]
pub mod marker {
    /// Marker of a type that knows how to take itself out of a call.
    #[derive(Debug)]
    pub enum ViaCall {}
    /// Marker of an extractor: [`FromContext`](super::FromContext).
    #[derive(Debug)]
    pub enum ViaContext {}
    /// Marker of an extractor that may refuse.
    #[derive(Debug)]
    pub enum ViaOption {}
    /// Marker of an extractor whose error the method handles.
    #[derive(Debug)]
    pub enum ViaFallible {}
    /// Marker of an argument, deserialized from the next one that the client gave.
    #[derive(Debug)]
    pub enum ViaArgument {}
    /// Marker of an argument that is borrowed, such as `&str`. Nothing comes this way: it makes such a parameter
    /// ambiguous, so that compilers print this name in place of a text about lifetimes.
    #[derive(Debug)]
    pub enum ParametersAreOwnedTakeString {}
    /// Marker of a stream that the client uploads.
    #[derive(Debug)]
    pub enum ViaUpload {}

    /// A way to make a parameter that takes nothing from the client.
    #[diagnostic::on_unimplemented(
        message = "hooks and filters take extractors only: no client gives them arguments or streams",
        label = "not an extractor, but something that a client gives to a method",
        note = "extractors are `Context`, `State<T>`, `Cancellation`, and types that implement `trunkline::FromContext`",
        note = "a filter reads arguments by `HubCall::argument`, and has `HubCall` and `Next` last"
    )]
    pub trait OfExtractor {}
    impl OfExtractor for ViaCall {}
    impl OfExtractor for ViaContext {}
    impl OfExtractor for ViaOption {}
    impl OfExtractor for ViaFallible {}
}

use marker::{ParametersAreOwnedTakeString, ViaArgument, ViaCall, ViaContext, ViaFallible, ViaOption, ViaUpload};

/// Call of a method, from which its parameters are extracted.
#[derive(Debug)]
pub struct Call<S> {
    context: Context,
    state: S,
    arguments: std::vec::IntoIter<Payload>,
    stream_ids: std::vec::IntoIter<ByteString>,
    taken: usize,
    close: Option<ConnectionClose>,
}

/// Input of a method or a hook.
pub(crate) struct CallInput {
    pub(crate) context: Context,
    pub(crate) arguments: Vec<Payload>,
    pub(crate) stream_ids: Vec<ByteString>,
    /// The close of the connection, for `on_disconnected`.
    pub(crate) close: Option<ConnectionClose>,
}

/// An extractor of your own: a parameter of methods, hooks and filters, made from the connection and the hub's state.
///
/// Implement it for what many methods need; it may wait, for a look-up in a database say. If it fails, the method is
/// not called, and the client is answered with the error. A method takes
///
/// | as | when the extractor fails |
/// |---|---|
/// | `Me` | the call fails with its error |
/// | `Option<Me>` | `None` if it refuses the client ([`HubError::new`]); on an internal error the call fails |
/// | `Result<Me, HubError>` | the method gets the error |
///
/// `S` is the state of the hub. Often `#[derive(FromContext)]` (with the feature `macros`) is enough. The type must not
/// be `Deserialize` as well: it could be an argument then, and the compiler would not know which one is meant.
///
/// ```
/// use axum::extract::FromRef;
/// use trunkline::{Context, FromContext, Hub, HubError};
///
/// #[derive(Clone)]
/// struct Store;
///
/// impl Store {
///     async fn is_member(&self, user: &str) -> std::io::Result<bool> {
///         Ok(user != "eve")
///     }
/// }
///
/// struct Member(String);
///
/// impl<S: Send + Sync> FromContext<S> for Member
/// where
///     Store: FromRef<S>,
/// {
///     async fn from_context(ctx: &Context, state: &S) -> Result<Self, HubError> {
///         let user = ctx.user_id().ok_or_else(|| HubError::new("log in first"))?;
///         match Store::from_ref(state).is_member(user).await? {
///             true => Ok(Member(user.to_owned())),
///             false => Err(HubError::new("members only")),
///         }
///     }
/// }
///
/// async fn whisper(ctx: Context, Member(from): Member, to: String, text: String) -> Result<(), HubError> {
///     ctx.clients().user(to).send("Whisper", (from, text)).await?;
///     Ok(())
/// }
///
/// async fn peek(member: Option<Member>) -> bool {
///     member.is_some()
/// }
///
/// let hub: Hub = Hub::new("/club").method("Whisper", whisper).method("Peek", peek).with_state(Store);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor",
    label = "can't be made from a connection and the hub's state",
    note = "a type of your own becomes one by `#[derive(trunkline::FromContext)]`, or implements the trait",
    note = "`State<T>` needs a hub whose state gives a `T`: `.with_state(…)`, and `axum::extract::FromRef` for its parts"
)]
pub trait FromContext<S>: Sized {
    /// Makes the parameter.
    ///
    /// # Errors
    /// When it can't be made: the method is not called then.
    fn from_context(ctx: &Context, state: &S) -> impl Future<Output = Result<Self, HubError>> + Send;
}

/// A parameter of a hub method.
///
/// Implemented for extractors ([`FromContext`]) such as [`Context`], [`State<T>`](axum::extract::State) and
/// [`Cancellation`](crate::Cancellation), for `Option` and `Result<_, HubError>` of them, for [`CloseReason`],
/// [`Cause`] and [`Rehomed`](crate::Rehomed) in hooks, for [`UploadStream`], which takes the client's next stream, and
/// for every type that can be deserialized, which takes its next argument.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a parameter of a hub method",
    label = "neither an extractor nor an argument that can be deserialized",
    note = "an argument of the client is an owned type: derive `serde::Deserialize`, and take `String` instead of `&str`",
    note = "an extractor is `Context`, `State<T>`, … or a type that implements `trunkline::FromContext`, taken by value",
    note = "`State<T>` needs a hub whose state gives a `T`: `.with_state(…)`, and `axum::extract::FromRef` for its parts; to `#[debug_method]` the state is named by `#[debug_method(state = App)]`"
)]
pub trait FromCall<S, M>: Sized {
    /// Number of the client's arguments that it takes.
    const ARGUMENTS: usize = 0;
    /// Number of the client's streams that it takes.
    const UPLOADS: usize = 0;

    #[doc(hidden)]
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send;
}

/// Error with which the connection closed, for `on_disconnected`: `None` when the client simply left. A [`Cause`] says
/// the reason more exactly, in the words of metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason(pub Option<String>);

/// Argument that is no value of its parameter's type; what the log says, and clients read only in detail.
#[derive(Debug, thiserror::Error)]
#[error("argument {argument}: {source}")]
struct UnfitArgument {
    argument: usize,
    source: PayloadError,
}

impl<S> Call<S> {
    pub(crate) fn new(input: CallInput, state: S) -> Self {
        let CallInput { context, arguments, stream_ids, close } = input;
        Self { context, state, arguments: arguments.into_iter(), stream_ids: stream_ids.into_iter(), taken: 0, close }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    fn next_argument<T: DeserializeOwned>(&mut self) -> Result<T, HubError> {
        let payload = self.arguments.next().ok_or_else(|| HubError::invalid_data("An argument is missing."))?;
        self.taken += 1;
        read_argument(self.context.codec(), &payload, self.taken)
    }
}

/// Deserializes an argument, counted from one.
pub(crate) fn read_argument<T: DeserializeOwned>(
    codec: Codec,
    payload: &Payload,
    argument: usize,
) -> Result<T, HubError> {
    let unfit = |source| text::unfit_argument(codec.protocol(), argument).because(UnfitArgument { argument, source });
    codec.value(payload).map_err(unfit)
}

#[diagnostic::do_not_recommend]
impl<S: Sync + Send, T: FromContext<S>> FromCall<S, ViaContext> for T {
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        T::from_context(&call.context, &call.state)
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync + Send, T: FromContext<S>> FromCall<S, ViaOption> for Option<T> {
    async fn from_call(call: &mut Call<S>) -> Result<Self, HubError> {
        match T::from_context(&call.context, &call.state).await {
            Ok(value) => Ok(Some(value)),
            Err(refusal) if refusal.is_shown() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync + Send, T: FromContext<S>> FromCall<S, ViaFallible> for Result<T, HubError> {
    async fn from_call(call: &mut Call<S>) -> Result<Self, HubError> {
        Ok(T::from_context(&call.context, &call.state).await)
    }
}

#[diagnostic::do_not_recommend]
impl<S: Send> FromCall<S, ViaCall> for CloseReason {
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        let reason = call.close.as_ref().and_then(|close| close.error.as_deref().map(str::to_owned));
        future::ready(Ok(CloseReason(reason)))
    }
}

#[diagnostic::do_not_recommend]
impl<S: Send> FromCall<S, ViaCall> for Cause {
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        let cause = call.close.as_ref().map(|close| close.cause);
        future::ready(cause.ok_or_else(|| HubError::named("NoCause", "only on_disconnected is told a cause")))
    }
}

#[diagnostic::do_not_recommend]
impl<S: Send, T: Send> FromCall<S, ViaUpload> for UploadStream<T> {
    const UPLOADS: usize = 1;

    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        // Their number was checked before.
        let id = call.stream_ids.next().ok_or_else(|| HubError::invalid_data("A stream is missing."));
        future::ready(id.map(|id| UploadStream::new(&call.context, id)))
    }
}

// To the compiler a `&str` is `DeserializeOwned`, until it looks at lifetimes.
#[diagnostic::do_not_recommend]
impl<'a, S: Send, T: ?Sized> FromCall<S, ParametersAreOwnedTakeString> for &'a T
where
    &'a T: DeserializeOwned + Send,
{
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        future::ready(call.next_argument())
    }
}

#[diagnostic::do_not_recommend]
impl<S: Send, T: DeserializeOwned + Send> FromCall<S, ViaArgument> for T {
    const ARGUMENTS: usize = 1;

    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        future::ready(call.next_argument())
    }
}
