//! Async functions as hub methods: parameters in, a result or a stream out.

pub(crate) mod filter;
pub mod marker;
mod reply;

use std::future::Future;
use std::pin::Pin;

use bytestring::ByteString;

use crate::call::{Call, CallInput, FromCall, Rejection};
use crate::error::HubError;
use crate::metrics::MethodMetrics;

pub use reply::{IntoItem, IntoReply, Reply};
pub(crate) use reply::{ItemStream, ReplyBody};

/// An async function that can be a hub method: each parameter is an extractor or an argument
/// ([`FromCall`]), at most ten of them, and the result can be answered ([`IntoReply`]).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no hub method",
    label = "not an async function of extractors and arguments that returns a reply",
    note = "parameters: `Context`, `State<T>`, `UploadStream<T>`, or owned types that implement `serde::Deserialize`; at most ten",
    note = "result: `()`, a type that implements `serde::Serialize`, a stream of it, or `Result<_, trunkline::HubError>` of these",
    note = "the future must be `Send`: nothing like `Rc` may live across an `.await`"
)]
pub trait Handler<S, M>: Clone + Send + Sync + Sized + 'static {
    /// Number of the client's arguments that it takes.
    const ARGUMENTS: usize;
    /// Number of the client's streams that it takes.
    const UPLOADS: usize;
    /// Whether it answers with a stream.
    const IS_STREAMING: bool;

    /// Takes the parameters out of the call; nothing of the function has run when this returns.
    #[doc(hidden)]
    fn call(self, call: Call<S>) -> Result<impl Future<Output = Result<Reply, HubError>> + Send + 'static, Rejection>;
}

macro_rules! function_as_handler {
    ($(($marker:ident, $parameter:ident)),+) => {
        impl<S, F, Fut, R, RM, $($marker, $parameter,)+> Handler<S, (RM, $($marker, $parameter,)+)> for F
        where
            F: Fn($($parameter),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoReply<RM>,
            S: Send + 'static,
            $($parameter: FromCall<S, $marker> + Send + 'static,)*
        {
            const ARGUMENTS: usize = 0 $(+ <$parameter as FromCall<S, $marker>>::ARGUMENTS)*;
            const UPLOADS: usize = 0 $(+ <$parameter as FromCall<S, $marker>>::UPLOADS)*;
            const IS_STREAMING: bool = R::IS_STREAMING;

            #[expect(non_snake_case, reason = "types and values share their names in the macro")]
            fn call(
                self,
                mut call: Call<S>,
            ) -> Result<impl Future<Output = Result<Reply, HubError>> + Send + 'static, Rejection> {
                $(let $parameter = <$parameter as FromCall<S, $marker>>::from_call(&mut call)?;)*
                let codec = call.codec();
                Ok(async move { self($($parameter),*).await.into_reply(codec) })
            }
        }
    };
}

impl<S, F, Fut, R, RM> Handler<S, (RM,)> for F
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = R> + Send,
    R: IntoReply<RM>,
    S: Send + 'static,
{
    const ARGUMENTS: usize = 0;
    const UPLOADS: usize = 0;
    const IS_STREAMING: bool = R::IS_STREAMING;

    fn call(self, call: Call<S>) -> Result<impl Future<Output = Result<Reply, HubError>> + Send + 'static, Rejection> {
        let codec = call.codec();
        Ok(async move { self().await.into_reply(codec) })
    }
}

function_as_handler!((M1, T1));
function_as_handler!((M1, T1), (M2, T2));
function_as_handler!((M1, T1), (M2, T2), (M3, T3));
function_as_handler!((M1, T1), (M2, T2), (M3, T3), (M4, T4));
function_as_handler!((M1, T1), (M2, T2), (M3, T3), (M4, T4), (M5, T5));
function_as_handler!((M1, T1), (M2, T2), (M3, T3), (M4, T4), (M5, T5), (M6, T6));
function_as_handler!((M1, T1), (M2, T2), (M3, T3), (M4, T4), (M5, T5), (M6, T6), (M7, T7));
function_as_handler!((M1, T1), (M2, T2), (M3, T3), (M4, T4), (M5, T5), (M6, T6), (M7, T7), (M8, T8));
function_as_handler!((M1, T1), (M2, T2), (M3, T3), (M4, T4), (M5, T5), (M6, T6), (M7, T7), (M8, T8), (M9, T9));
function_as_handler!(
    (M1, T1),
    (M2, T2),
    (M3, T3),
    (M4, T4),
    (M5, T5),
    (M6, T6),
    (M7, T7),
    (M8, T8),
    (M9, T9),
    (M10, T10)
);

/// Future of a running method.
pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Result<Reply, HubError>> + Send>>;

type MethodFn = dyn Fn(CallInput) -> Result<ReplyFuture, Rejection> + Send + Sync;

/// A method with its types erased and its state bound.
pub(crate) struct Method {
    pub(crate) name: ByteString,
    pub(crate) arguments: usize,
    pub(crate) uploads: usize,
    pub(crate) is_streaming: bool,
    pub(crate) metrics: MethodMetrics,
    call: Box<MethodFn>,
}

impl Method {
    /// Extracts the parameters; the method runs when the future is polled.
    pub(crate) fn call(&self, input: CallInput) -> Result<ReplyFuture, Rejection> {
        (self.call)(input)
    }

    /// Whether it runs beside the other calls of its client.
    pub(crate) fn has_streams(&self) -> bool {
        self.is_streaming || self.uploads > 0
    }
}

/// A method whose state may still be missing.
pub(crate) enum Bindable<S> {
    Unbound(Box<dyn FnOnce(S) -> Method + Send + Sync>),
    Bound(Method),
}

impl<S: Clone + Send + Sync + 'static> Bindable<S> {
    pub(crate) fn new<H: Handler<S, M>, M: 'static>(name: ByteString, handler: H) -> Self {
        Self::Unbound(Box::new(move |state: S| Method {
            name,
            arguments: H::ARGUMENTS,
            uploads: H::UPLOADS,
            is_streaming: H::IS_STREAMING,
            metrics: MethodMetrics::default(),
            call: Box::new(move |input| Ok(Box::pin(handler.clone().call(Call::new(input, state.clone()))?))),
        }))
    }

    /// Gives the method its state.
    pub(crate) fn bind(self, state: &S) -> Method {
        match self {
            Self::Unbound(bind) => bind(state.clone()),
            Self::Bound(method) => method,
        }
    }
}
