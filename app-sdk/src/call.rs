//! Calls of methods and hooks, and extraction of their parameters, with the built-in extractors.
//!
//! ```text
//!  call ──► parameter by parameter ─┬─ extractor: made from the connection and the hub's state
//!                                   ├─ argument: the client's next one
//!                                   └─ upload: the client's next stream
//! ```

#[doc(hidden)]
pub mod part;

use std::future::{self, Future};

use bytestring::ByteString;
use serde::de::DeserializeOwned;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{HubProtocol, Payload, PayloadError};

use crate::connection::{ConnectRequest, ConnectionClose};
use crate::context::upload_stream::UploadStream;
use crate::context::{Cancellation, Context};
use crate::error::{HubError, text};
use crate::naming::Codec;

/// Markers that select how a parameter is made. The compiler infers them.
#[doc(hidden)]
pub mod marker {
    /// A type that extracts itself from a call.
    #[derive(Debug)]
    pub enum ViaCall {}
    /// An extractor that implements [`FromContext`](super::FromContext).
    #[derive(Debug)]
    pub enum ViaContext {}
    /// An extractor that may refuse, as an `Option`.
    #[derive(Debug)]
    pub enum ViaOption {}
    /// An extractor with an error that the method handles.
    #[derive(Debug)]
    pub enum ViaFallible {}
    /// An argument, deserialized from the client's next argument.
    #[derive(Debug)]
    pub enum ViaArgument {}
    /// A borrowed argument, such as `&str`. Never used: it makes such a parameter ambiguous, so that the compiler
    /// prints this name instead of a lifetime error.
    #[derive(Debug)]
    pub enum ParametersAreOwnedTakeString {}
    /// A stream uploaded by the client.
    #[derive(Debug)]
    pub enum ViaUpload {}

    /// Implemented for markers of parameters that use nothing from the client.
    #[diagnostic::on_unimplemented(
        message = "hooks and filters take extractors only: no client gives them arguments or streams",
        label = "not an extractor but an argument of a hub method",
        note = "extractors are `Context`, `State<T>`, `Cancellation`, and types that implement \
                `trunkline::FromContext`",
        note = "a filter reads arguments by `HubCall::argument`, and has `HubCall` and `Next` last"
    )]
    pub trait OfExtractor {}
    impl OfExtractor for ViaCall {}
    impl OfExtractor for ViaContext {}
    impl OfExtractor for ViaOption {}
    impl OfExtractor for ViaFallible {}
}

use axum::Extension;
use axum::extract::{FromRef, Query, State};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use marker::{ParametersAreOwnedTakeString, ViaArgument, ViaCall, ViaContext, ViaFallible, ViaOption, ViaUpload};
use trunkline_protocol::wire::{ITEMS_HEADER, MIGRATE_FROM_HEADER};

/// Call of a method, the source of its parameters.
#[derive(Debug)]
pub struct Call<S> {
    pub(crate) context: Context,
    state: S,
    arguments: std::vec::IntoIter<Payload>,
    stream_ids: std::vec::IntoIter<ByteString>,
    taken: usize,
    close: Option<ConnectionClose>,
}

pub(crate) struct CallInput {
    pub(crate) context: Context,
    pub(crate) arguments: Vec<Payload>,
    pub(crate) stream_ids: Vec<ByteString>,
    /// How the connection closed, for `on_disconnected`.
    pub(crate) close: Option<ConnectionClose>,
}

/// A custom extractor: a parameter of methods, hooks and filters, made from the connection and the hub's state.
///
/// Implement it for what many methods need, asynchronously if necessary, for example to query a database. If it fails,
/// the method is not called, and the client receives the error. A method can take it as
///
/// | parameter | if the extractor fails |
/// |---|---|
/// | `Me` | the call fails with the error |
/// | `Option<Me>` | `None` if the client is refused ([`HubError::new`]); the call fails on an internal error |
/// | `Result<Me, HubError>` | the method receives the error |
///
/// `S` is the hub's state. Often `#[derive(FromContext)]` (feature `macros`) is enough. The type must not implement
/// `Deserialize`: the compiler could not tell it from an argument.
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
    message = "`{Self}` is not an extractor",
    label = "can't be extracted from a connection and the hub's state",
    note = "derive `trunkline::FromContext` for your own type, or implement the trait",
    note = "`State<T>` needs a hub with a state that provides a `T`: `.with_state(…)`, and `axum::extract::FromRef` \
            for its parts"
)]
pub trait FromContext<S>: Sized {
    /// Creates the parameter.
    ///
    /// # Errors
    /// If it fails, the method is not called.
    fn from_context(ctx: &Context, state: &S) -> impl Future<Output = Result<Self, HubError>> + Send;
}

/// A parameter of a hub method.
///
/// Implemented for extractors ([`FromContext`]) such as [`Context`], [`State<T>`](axum::extract::State) and
/// [`Cancellation`]; for `Option` and `Result<_, HubError>` of extractors; in hooks for
/// [`CloseReason`], [`Cause`] and [`Rehomed`]; for [`UploadStream`], which takes the client's next
/// stream; and for every deserializable type, which takes the client's next argument.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a parameter of a hub method",
    label = "neither an extractor nor an argument that can be deserialized",
    note = "an argument of the client is an owned type: derive `serde::Deserialize`, and take `String` instead of \
            `&str`",
    note = "an extractor is `Context`, `State<T>`, … or a type that implements `trunkline::FromContext`, taken by \
            value",
    note = "`State<T>` needs a hub with a state that provides a `T`: `.with_state(…)`, and `axum::extract::FromRef` \
            for its parts; name the type of the state by `#[debug_method(state = App)]`"
)]
pub trait FromCall<S, M>: Sized {
    /// Number of client arguments that it takes.
    const ARGUMENTS: usize = 0;
    /// Number of client streams that it takes.
    const UPLOADS: usize = 0;

    #[doc(hidden)]
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send;
}

/// Error with which the connection closed, for `on_disconnected`; `None` for a normal close. [`Cause`] is more precise,
/// as in metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason(pub Option<String>);

/// Argument that does not fit its parameter's type. For the log, and for clients only with detailed errors.
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

    fn next_argument<T: DeserializeOwned>(&mut self) -> Result<T, HubError> {
        let payload = self.arguments.next().ok_or_else(|| HubError::invalid_data("An argument is missing."))?;
        self.taken += 1;
        read_argument(self.context.codec(), &payload, self.taken)
    }
}

/// Deserializes an argument. `argument` counts from one.
pub(crate) fn read_argument<T: DeserializeOwned>(
    codec: Codec,
    payload: &Payload,
    argument: usize,
) -> Result<T, HubError> {
    let unfit = |source| text::unfit_argument(codec.protocol, argument).because(UnfitArgument { argument, source });
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
        future::ready(cause.ok_or_else(|| HubError::named("NoCause", "only on_disconnected has a cause")))
    }
}

#[diagnostic::do_not_recommend]
impl<S: Send, T: Send> FromCall<S, ViaUpload> for UploadStream<T> {
    const UPLOADS: usize = 1;

    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        // The number of streams was checked before.
        let id = call.stream_ids.next().ok_or_else(|| HubError::invalid_data("A stream is missing."));
        future::ready(id.map(|id| UploadStream::new(&call.context, id)))
    }
}

// Before lifetimes are checked, the compiler treats `&str` as `DeserializeOwned`.
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

impl<S: Sync> FromContext<S> for Context {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        Ok(ctx.clone())
    }
}

impl<S: Sync> FromContext<S> for Cancellation {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        Ok(ctx.call_cancellation())
    }
}

/// A part of the hub's state.
impl<S: Sync, T: FromRef<S> + Send> FromContext<S> for State<T> {
    async fn from_context(_ctx: &Context, state: &S) -> Result<Self, HubError> {
        Ok(State(T::from_ref(state)))
    }
}

/// Headers of the connect request.
impl<S: Sync> FromContext<S> for HeaderMap {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        Ok(ctx.headers())
    }
}

/// Query of the connect request.
impl<S: Sync, T: DeserializeOwned> FromContext<S> for Query<T> {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        let uri = http::Uri::builder().path_and_query(format!("/?{}", ctx.query().raw())).build()?;
        Query::try_from_uri(&uri).map_err(|error| HubError::new(error.to_string()))
    }
}

/// A value that a filter has [inserted into the call](crate::HubCall::insert).
impl<S: Sync, T: Clone + Send + Sync + 'static> FromContext<S> for Extension<T> {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        let missing =
            || HubError::named("MissingExtension", format!("no filter has inserted a {}", std::any::type_name::<T>()));
        ctx.scope.value().map(Extension).ok_or_else(missing)
    }
}

/// Maximum size of a connection's items. They travel in a header, once per connection.
pub(crate) const ITEMS_MAX_BYTES: usize = 16 * 1024;

/// Origin of a reassigned connection and the items that were handed over, for
/// [`Hub::on_rehomed`](crate::Hub::on_rehomed), and for raw connections with
/// [`RawConnection::rehomed`](crate::RawConnection::rehomed).
///
/// ```
/// use trunkline::{Context, Hub, HubError, Rehomed};
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Nickname(String);
///
/// async fn leaving(ctx: Context) -> Option<Nickname> {
///     ctx.items().get()
/// }
///
/// async fn rehomed(ctx: Context, moved: Rehomed) -> Result<(), HubError> {
///     if let Some(name) = moved.items::<Option<Nickname>>()?.flatten() {
///         ctx.items().insert(name);
///     }
///     Ok(())
/// }
///
/// let hub: Hub = Hub::new("/chat").on_leaving(leaving).on_rehomed(rehomed);
/// ```
#[derive(Debug, Clone)]
pub struct Rehomed {
    from: String,
    items: Option<Payload>,
    protocol: HubProtocol,
}

impl Rehomed {
    /// The [instance](crate::ServerHandle::instance) that served the connection before: the current one if only its
    /// link was lost, so that its [items](crate::Context::items) still exist.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// Result of [`on_leaving`](crate::Hub::on_leaving) on the previous app server, or the value given to
    /// [`RawConnection::hand_over`](crate::RawConnection::hand_over); `None` without one, for example after a
    /// crash.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn items<T: DeserializeOwned>(&self) -> Result<Option<T>, HubError> {
        let read = |items| self.protocol.value(items).map_err(|error| HubError::invalid_data(error.to_string()));
        self.items.as_ref().map(read).transpose()
    }

    pub(crate) fn from_request(request: &ConnectRequest, protocol: HubProtocol) -> Option<Self> {
        let from = request.header(MIGRATE_FROM_HEADER)?.to_string();
        let items = request.header(ITEMS_HEADER).and_then(|items| URL_SAFE_NO_PAD.decode(&*items).ok());
        Some(Self { from, items: items.map(|items| Payload::new(items.into())), protocol })
    }
}

/// Encodes items for their header. Returns `None` if they are too large.
pub(crate) fn encode_items(items: &Payload) -> Option<String> {
    let bytes = items.as_bytes();
    (bytes.len() <= ITEMS_MAX_BYTES).then(|| URL_SAFE_NO_PAD.encode(bytes))
}

#[diagnostic::do_not_recommend]
impl<S: Send> FromCall<S, ViaCall> for Rehomed {
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        let connection = &call.context.scope.connection;
        let rehomed = Self::from_request(&connection.request, connection.protocol);
        future::ready(rehomed.ok_or_else(|| HubError::named("NotRehomed", "this connection began here")))
    }
}
