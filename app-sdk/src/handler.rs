//! Async functions as hub methods: parameters in, a result out.

use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use trunkline_protocol::hub::{HubProtocol, Payload};

use crate::call::{Call, FromCall, Rejection};
use crate::context::Context;
use crate::error::HubError;

/// Tells apart the ways to answer; the compiler finds out which one is meant.
pub mod marker {
    /// The value itself.
    #[derive(Debug)]
    pub enum ViaValue {}
    /// A value or a [`HubError`](crate::HubError).
    #[derive(Debug)]
    pub enum ViaResult {}
}

use marker::{ViaResult, ViaValue};

/// What a method answers, encoded for the client that called.
#[derive(Debug)]
pub struct Reply(pub(crate) Payload);

/// A value that a hub method may return: anything that can be serialized, or a `Result` of it and [`HubError`].
#[diagnostic::on_unimplemented(
    message = "a hub method can't return `{Self}`",
    label = "neither serializable nor `Result<_, HubError>`",
    note = "return `()`, a type that implements `serde::Serialize`, or `Result<T, trunkline::HubError>` of such a type",
    note = "inside the method `?` turns any `std::error::Error` into a `HubError`"
)]
pub trait IntoReply<M> {
    #[doc(hidden)]
    fn into_reply(self, protocol: HubProtocol) -> Result<Reply, HubError>;
}

impl<T: Serialize> IntoReply<ViaValue> for T {
    fn into_reply(self, protocol: HubProtocol) -> Result<Reply, HubError> {
        Ok(Reply(protocol.payload(&self)?))
    }
}

impl<T: Serialize> IntoReply<ViaResult> for Result<T, HubError> {
    fn into_reply(self, protocol: HubProtocol) -> Result<Reply, HubError> {
        self?.into_reply(protocol)
    }
}

/// An async function that can be a hub method: each parameter is an extractor or an argument
/// ([`FromCall`]), at most ten of them, and the result can be answered ([`IntoReply`]).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no hub method",
    label = "not an async function of extractors and arguments that returns a reply",
    note = "parameters: `Context`, `State<T>`, or owned types that implement `serde::Deserialize`; at most ten",
    note = "result: `()`, a type that implements `serde::Serialize`, or `Result<T, trunkline::HubError>`",
    note = "the future must be `Send`: nothing like `Rc` may live across an `.await`"
)]
pub trait Handler<S, M>: Clone + Send + Sync + Sized + 'static {
    /// How many arguments of the client it takes.
    const ARGUMENTS: usize;

    #[doc(hidden)]
    fn call(self, call: Call<S>) -> impl Future<Output = Result<Reply, Rejection>> + Send;
}

macro_rules! function_as_handler {
    ($(($marker:ident, $parameter:ident)),+) => {
        impl<S, F, Fut, R, RM, $($marker, $parameter,)+> Handler<S, (RM, $($marker, $parameter,)+)> for F
        where
            F: Fn($($parameter),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoReply<RM>,
            S: Send + 'static,
            $($parameter: FromCall<S, $marker> + Send,)*
        {
            const ARGUMENTS: usize = 0 $(+ <$parameter as FromCall<S, $marker>>::ARGUMENTS)*;

            #[expect(non_snake_case, reason = "types and values share their names in the macro")]
            async fn call(self, mut call: Call<S>) -> Result<Reply, Rejection> {
                $(let $parameter = <$parameter as FromCall<S, $marker>>::from_call(&mut call)?;)*
                let protocol = call.protocol();
                drop(call);
                Ok(self($($parameter),*).await.into_reply(protocol)?)
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

    async fn call(self, call: Call<S>) -> Result<Reply, Rejection> {
        Ok(self().await.into_reply(call.protocol())?)
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

type Answering = Pin<Box<dyn Future<Output = Result<Reply, Rejection>> + Send>>;

type Calling = dyn Fn(Context, Vec<Payload>, Option<String>) -> Answering + Send + Sync;

/// A method whose types are forgotten and whose state is known.
pub(crate) struct Method {
    arguments: usize,
    call: Box<Calling>,
}

impl Method {
    /// How many arguments it takes.
    pub(crate) fn arguments(&self) -> usize {
        self.arguments
    }

    /// Calls it; `reason` is for `on_disconnected`.
    pub(crate) fn call(&self, context: Context, arguments: Vec<Payload>, reason: Option<String>) -> Answering {
        (self.call)(context, arguments, reason)
    }
}

/// A method that waits for its state, unless it has it already.
pub(crate) enum Bindable<S> {
    Waiting(Box<dyn FnOnce(S) -> Method + Send + Sync>),
    Bound(Method),
}

impl<S: Clone + Send + Sync + 'static> Bindable<S> {
    pub(crate) fn new<H: Handler<S, M>, M: 'static>(handler: H) -> Self {
        Self::Waiting(Box::new(move |state: S| Method {
            arguments: H::ARGUMENTS,
            call: Box::new(move |context, arguments, reason| {
                Box::pin(handler.clone().call(Call::new(context, state.clone(), arguments, reason)))
            }),
        }))
    }

    /// Gives it its state.
    pub(crate) fn bind(self, state: &S) -> Method {
        match self {
            Self::Waiting(bind) => bind(state.clone()),
            Self::Bound(method) => method,
        }
    }
}
