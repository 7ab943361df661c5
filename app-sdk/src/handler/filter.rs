//! Filters: code of the app around the methods and hooks of a hub.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::Payload;

use crate::call::marker::OfExtractor;
use crate::call::{Call, CallInput, FromCall, read_argument};
use crate::connection::ConnectionClose;
use crate::context::Context;
use crate::error::HubError;
use crate::handler::arity::for_each_arity;
use crate::handler::{Reply, ReplyFuture};

/// An async function that can be a [filter](crate::Hub::filter): any extractors, at most ten, then [`HubCall`] and
/// [`Next`], and `Result<Reply, HubError>` as its result.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no filter",
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

/// Call of a method or a hook, on its way through the [filters](crate::Hub::filter) of its hub.
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

/// Kind of a call that passes filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubCallKind {
    /// A client calls a method, whether there is one of this name or not.
    Method,
    /// A client connects ([`on_connected`](crate::Hub::on_connected)). An error closes it.
    Connected,
    /// A client has disconnected ([`on_disconnected`](crate::Hub::on_disconnected)).
    Disconnected,
    /// A client comes from another app server ([`on_rehomed`](crate::Hub::on_rehomed)). An error closes it.
    Rehomed,
    /// A client has got back what its lost connection had ([`on_restored`](crate::Hub::on_restored)). An error closes
    /// it.
    Restored,
    /// A client has renewed its log-in ([`on_refreshed`](crate::Hub::on_refreshed)). An error closes it.
    Refreshed,
    /// A client is about to go to another app server ([`on_leaving`](crate::Hub::on_leaving)).
    Leaving,
}

/// Rest of the chain: the inner filters, and the method.
pub struct Next {
    filters: std::vec::IntoIter<ErasedFilter>,
    method: ReplyFuture,
}

/// A filter with its types erased and its state bound.
type ErasedFilter = Arc<dyn Fn(HubCall, Next) -> ReplyFuture + Send + Sync>;

/// A filter whose state may still be missing.
pub(crate) struct BindableFilter<S>(Arc<dyn Fn(&S) -> ErasedFilter + Send + Sync>);

/// Filters with their state, the outermost first.
#[derive(Clone, Default)]
pub(crate) struct Filters(Vec<ErasedFilter>);

impl<S: Clone + Send + Sync + 'static> BindableFilter<S> {
    pub(crate) fn new<F: Filter<S, M>, M: 'static>(filter: F) -> Self {
        Self(Arc::new(move |state: &S| {
            let (filter, state) = (filter.clone(), state.clone());
            Arc::new(move |call, next| Box::pin(filter.clone().run(state.clone(), call, next)))
        }))
    }

    /// Gives the filter its state, for a hub whose state is of another type from now on.
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
    /// Gives filters their state.
    pub(crate) fn bind<S>(filters: &[BindableFilter<S>], state: &S) -> Self {
        Self(filters.iter().map(|filter| (filter.0)(state)).collect())
    }

    /// These filters around the others.
    pub(crate) fn around(&self, inner: &Filters) -> Self {
        Self(self.0.iter().chain(&inner.0).map(Arc::clone).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the filters around a method or hooks.
    pub(crate) fn wrap(&self, call: HubCall, inner: ReplyFuture) -> ReplyFuture {
        let next = Next { filters: self.0.clone().into_iter(), method: inner };
        Box::pin(next.run(call))
    }
}

impl HubCall {
    /// A call of a method of this name, with so many uploads.
    pub(crate) fn of_method(name: &ByteString, uploads: usize, is_streaming: bool, input: &CallInput) -> Self {
        Self { is_streaming, ..Self::unbound(name.clone(), input, uploads) }
    }

    /// A call that no method of the hub fits, with so many uploads.
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

    /// The connection of the caller.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether a method or a hook is called.
    #[must_use]
    pub fn kind(&self) -> HubCallKind {
        self.kind
    }

    /// Name of the method, as the hub has it; of an unknown one as the client wrote it; of a hook its own, such as
    /// `on_connected`.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Number of arguments that the client gave.
    #[must_use]
    pub fn argument_count(&self) -> usize {
        self.arguments.len()
    }

    /// The client's argument at this index, counted from zero; `None` if it gave fewer.
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

    /// Whether the method answers with a stream.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    /// Keeps a value with this call, such as a transaction: the inner filters and the method take it as
    /// [`Extension<T>`](axum::Extension). It is dropped with the call.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) {
        self.context.scope().extensions().insert(value);
    }

    /// Makes a reply in place of the method's own. A streaming method has none: only an error can replace its stream.
    ///
    /// # Errors
    /// When the value can't be written in the client's hub protocol.
    pub fn reply<T: Serialize>(&self, value: &T) -> Result<Reply, HubError> {
        Reply::value(value, self.context.codec())
    }
}

impl HubCallKind {
    /// Name of the hook; of a method `method`.
    pub(crate) fn hook_name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Connected => "on_connected",
            Self::Disconnected => "on_disconnected",
            Self::Rehomed => "on_rehomed",
            Self::Restored => "on_restored",
            Self::Refreshed => "on_refreshed",
            Self::Leaving => "on_leaving",
        }
    }
}

impl Next {
    /// Runs the rest of the chain. Without this the method is never called.
    ///
    /// # Errors
    /// With what the method failed, or why it was not called: there is no such method, its arguments don't fit, an
    /// extractor or a policy refuses.
    pub async fn run(mut self, call: HubCall) -> Result<Reply, HubError> {
        match self.filters.next() {
            Some(filter) => filter(call, self).await,
            None => self.method.await,
        }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("filters", &self.filters.len()).finish_non_exhaustive()
    }
}

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
                    // The first of these impls takes nothing from it.
                    let _ = &mut parameters;
                    drop(parameters);
                    self($($name,)* call, next).await
                }
            }
        }
    };
}
for_each_arity!(function_as_filter);
