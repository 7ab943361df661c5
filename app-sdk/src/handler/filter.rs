//! Filters: app code around the methods and hooks of a hub.

use std::future::Future;
use std::sync::Arc;

use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::Payload;

use crate::brief_debug::brief_debug;
use crate::call::marker::OfExtractor;
use crate::call::{Call, CallInput, FromCall, read_argument};
use crate::connection::ConnectionClose;
use crate::context::Context;
use crate::error::HubError;
use crate::handler::hook::for_each_arity;
use crate::handler::{Reply, ReplyFuture};

/// An async function that can be a [filter](crate::Hub::filter): at most ten extractors, then [`HubCall`] and
/// [`Next`], with the result `Result<Reply, HubError>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a filter",
    label = "not `async fn(extractors…, HubCall, Next) -> Result<Reply, HubError>`",
    note = "parameters: any extractors, then `HubCall`, and `Next` last; arguments are read by `HubCall::argument`",
    note = "result: `Result<trunkline::Reply, trunkline::HubError>`, as `next.run(call).await` returns it",
    note = "the future must be `Send`: nothing like `Rc` or a lock's guard may live across an `.await`"
)]
pub trait Filter<S, M>: Clone + Send + Sync + Sized + 'static {
    #[doc(hidden)]
    fn run(self, state: S, call: HubCall, next: Next)
    -> impl Future<Output = Result<Reply, HubError>> + Send + 'static;
}

/// Call of a method or hook, as seen by the [filters](crate::Hub::filter) of its hub.
#[derive(Debug, Clone)]
pub struct HubCall {
    context: Context,
    kind: HubCallKind,
    method: ByteString,
    arguments: Vec<Payload>,
    uploads: usize,
    is_streaming: bool,
    close: Option<ConnectionClose>,
}

/// Kind of a call that passes through filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubCallKind {
    /// Method call by a client, even if no method has this name.
    Method,
    /// A client connected ([`on_connected`](crate::Hub::on_connected)). An error closes its connection.
    Connected,
    /// A client disconnected ([`on_disconnected`](crate::Hub::on_disconnected)).
    Disconnected,
    /// A client was reassigned from another app server ([`on_rehomed`](crate::Hub::on_rehomed)). An error closes its
    /// connection.
    Rehomed,
    /// A client refreshed its authentication ([`on_refreshed`](crate::Hub::on_refreshed)). An error closes its
    /// connection.
    Refreshed,
    /// A client is about to be reassigned to another app server ([`on_leaving`](crate::Hub::on_leaving)).
    Leaving,
}

/// Rest of the chain: the inner filters and the method.
pub struct Next {
    filters: std::vec::IntoIter<ErasedFilter>,
    method: ReplyFuture,
}

type ErasedFilter = Arc<dyn Fn(HubCall, Next) -> ReplyFuture + Send + Sync>;

/// A filter that may not have its state yet.
pub(crate) struct BindableFilter<S>(Arc<dyn Fn(&S) -> ErasedFilter + Send + Sync>);

/// Filters with their state, outermost first.
#[derive(Clone, Default)]
pub(crate) struct Filters(Vec<ErasedFilter>);

impl<S: Clone + Send + Sync + 'static> BindableFilter<S> {
    pub(crate) fn new<F: Filter<S, M>, M: 'static>(filter: F) -> Self {
        Self(Arc::new(move |state: &S| {
            let (filter, state) = (filter.clone(), state.clone());
            Arc::new(move |call, next| Box::pin(filter.clone().run(state.clone(), call, next)))
        }))
    }

    /// Binds the state, for a hub that changes its state type afterwards.
    pub(crate) fn bind_early<S2: 'static>(&self, state: &S) -> BindableFilter<S2> {
        let bound = (self.0)(state);
        BindableFilter(Arc::new(move |_| Arc::clone(&bound)))
    }
}

impl<S> Clone for BindableFilter<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Filters {
    pub(crate) fn bind<S>(filters: &[BindableFilter<S>], state: &S) -> Self {
        Self(filters.iter().map(|filter| (filter.0)(state)).collect())
    }

    pub(crate) fn around(&self, inner: &Filters) -> Self {
        Self(self.0.iter().chain(&inner.0).map(Arc::clone).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn wrap(&self, call: HubCall, inner: ReplyFuture) -> ReplyFuture {
        let next = Next { filters: self.0.clone().into_iter(), method: inner };
        Box::pin(next.run(call))
    }
}

impl HubCall {
    pub(crate) fn of_method(name: &ByteString, uploads: usize, is_streaming: bool, input: &CallInput) -> Self {
        Self { is_streaming, ..Self::unbound(name.clone(), input, uploads) }
    }

    /// Call that matches no method of the hub.
    pub(crate) fn unbound(target: ByteString, input: &CallInput, uploads: usize) -> Self {
        Self {
            context: input.context.clone(),
            kind: HubCallKind::Method,
            method: target,
            arguments: input.arguments.clone(),
            uploads,
            is_streaming: false,
            close: None,
        }
    }

    pub(crate) fn of_hook(kind: HubCallKind, context: Context, close: Option<ConnectionClose>) -> Self {
        let method = ByteString::from_static(kind.hook_name());
        Self { context, kind, method, arguments: Vec::new(), uploads: 0, is_streaming: false, close }
    }

    /// Connection of the caller.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether a method or a hook is called.
    #[must_use]
    pub fn kind(&self) -> HubCallKind {
        self.kind
    }

    /// Name of the method as registered, of an unknown method as sent by the client, or of the hook, such as
    /// `on_connected`.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Number of arguments from the client.
    #[must_use]
    pub fn argument_count(&self) -> usize {
        self.arguments.len()
    }

    /// Returns the client's argument at this index, counted from zero; `None` if there are fewer.
    #[must_use]
    pub fn argument<T: DeserializeOwned>(&self, index: usize) -> Option<Result<T, HubError>> {
        let payload = self.arguments.get(index)?;
        Some(read_argument(self.context.codec(), payload, index + 1))
    }

    /// Number of streams that the client uploads.
    #[must_use]
    pub fn uploads(&self) -> usize {
        self.uploads
    }

    /// Whether the method returns a stream.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    /// Stores a value with this call, for example a transaction. Inner filters and the method extract it as
    /// [`Extension<T>`](axum::Extension).
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) {
        self.context.scope.insert(value);
    }

    /// Creates a reply that replaces the method's own. A stream can only be replaced by an error.
    ///
    /// # Errors
    /// If the value cannot be encoded in the client's hub protocol.
    pub fn reply<T: Serialize>(&self, value: &T) -> Result<Reply, HubError> {
        Reply::value(value, self.context.codec())
    }
}

impl HubCallKind {
    pub(crate) fn hook_name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Connected => "on_connected",
            Self::Disconnected => "on_disconnected",
            Self::Rehomed => "on_rehomed",
            Self::Refreshed => "on_refreshed",
            Self::Leaving => "on_leaving",
        }
    }
}

impl Next {
    /// Runs the rest of the chain. Without this, the method is not called.
    ///
    /// # Errors
    /// The method's error, or the reason why it was not called: no such method, arguments that do not fit, or a
    /// refusal by an extractor or policy.
    pub async fn run(mut self, call: HubCall) -> Result<Reply, HubError> {
        match self.filters.next() {
            Some(filter) => filter(call, self).await,
            None => self.method.await,
        }
    }
}

brief_debug!(Next, |it| { filters: it.filters.len() });

macro_rules! function_as_filter {
    ($(($marker:ident, $parameter:ident, $name:ident)),*) => {
        impl<S, F, Fut, $($marker, $parameter,)*> Filter<S, ($($marker, $parameter,)*)> for F
        where
            F: Fn($($parameter,)* HubCall, Next) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Result<Reply, HubError>> + Send,
            S: Send + 'static,
            $($marker: OfExtractor, $parameter: FromCall<S, $marker> + Send + 'static,)*
        {
            fn run(
                self,
                state: S,
                call: HubCall,
                next: Next,
            ) -> impl Future<Output = Result<Reply, HubError>> + Send + 'static {
                async move {
                    let (context, close) = (call.context.clone(), call.close.clone());
                    let input = CallInput { context, arguments: Vec::new(), stream_ids: Vec::new(), close };
                    let mut parameters = Call::new(input, state);
                    $(let $name = <$parameter as FromCall<S, $marker>>::from_call(&mut parameters).await?;)*
                    // The impl without parameters does not use it.
                    let _ = &mut parameters;
                    drop(parameters);
                    self($($name,)* call, next).await
                }
            }
        }
    };
}
for_each_arity!(function_as_filter);
