//! Async functions of the app: methods, hooks and filters, their results, and policies.
//!
//! ```text
//!  call ──► filters, outermost first ──► policies ──► parameters ──► function
//!   reply ◄── filters, innermost first ◄── its result, or the reason why it was not called
//! ```

#[doc(hidden)]
pub mod check;
pub(crate) mod filter;
pub(crate) mod hook;
pub(crate) mod policy;
mod reply;

use std::future::{self, Future};
use std::sync::OnceLock;

use bytestring::ByteString;

use crate::call::{Call, CallInput, FromCall};
use crate::error::HubError;
use crate::metrics::MethodMetrics;
use crate::watchdog::CodeId;

use filter::Filters;
pub use filter::{Filter, HubCall, HubCallKind, Next};
pub(crate) use hook::Bindable;
use hook::for_each_arity;
pub use hook::{Hook, IntoEnd};
use policy::Policies;
pub use policy::Policy;
#[doc(hidden)]
pub use reply::marker;
pub use reply::{IntoItem, IntoReply, Reply};
pub(crate) use reply::{ItemStream, ReplyBody, ReplyFuture};

/// An async function that can be a hub method: at most ten parameters, each an extractor or an argument
/// ([`FromCall`]), and a result that implements [`IntoReply`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a hub method",
    label = "not an async function of extractors and arguments that returns a reply",
    note = "parameters: `Context`, `State<T>`, `UploadStream<T>`, or owned types that implement `serde::Deserialize`; \
            at most ten",
    note = "result: `()`, a type that implements `serde::Serialize`, a stream of it, or `Result<_, \
            trunkline::HubError>` of these",
    note = "the future must be `Send`: nothing like `Rc` or a lock's guard may live across an `.await`",
    note = "`#[trunkline::debug_method]` on the function says which of these it is"
)]
pub trait Handler<S, M>: Clone + Send + Sync + Sized + 'static {
    /// Number of client arguments that it takes.
    const ARGUMENTS: usize;
    /// Number of client streams that it takes.
    const UPLOADS: usize;
    /// Whether it returns a stream.
    const IS_STREAMING: bool;

    /// Extracts the parameters and runs the function.
    #[doc(hidden)]
    fn call(self, call: Call<S>) -> impl Future<Output = Result<Reply, HubError>> + Send + 'static;
}

// The compiler prints a marker that it cannot infer: here the one of a result that is a `Result` of serializable
// types.
macro_rules! function_as_handler {
    ($(($marker:ident, $parameter:ident, $name:ident)),*) => {
        impl<S, F, Fut, R, TheErrorMustBeHubError, $($marker, $parameter,)*> Handler<S, (TheErrorMustBeHubError, $($marker, $parameter,)*)> for F
        where
            F: Fn($($parameter),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoReply<TheErrorMustBeHubError>,
            S: Send + 'static,
            $($parameter: FromCall<S, $marker> + Send + 'static,)*
        {
            const ARGUMENTS: usize = 0 $(+ <$parameter as FromCall<S, $marker>>::ARGUMENTS)*;
            const UPLOADS: usize = 0 $(+ <$parameter as FromCall<S, $marker>>::UPLOADS)*;
            const IS_STREAMING: bool = R::IS_STREAMING;

            fn call(self, mut call: Call<S>) -> impl Future<Output = Result<Reply, HubError>> + Send + 'static {
                async move {
                    $(let $name = <$parameter as FromCall<S, $marker>>::from_call(&mut call).await?;)*
                    // The impl without parameters does not use it.
                    let _ = &mut call;
                    let codec = call.context.codec();
                    drop(call);
                    self($($name),*).await.into_reply(codec)
                }
            }
        }
    };
}
for_each_arity!(function_as_handler);

type MethodFn = dyn Fn(CallInput) -> ReplyFuture + Send + Sync;

/// A type-erased method with its state bound.
pub(crate) struct Method {
    pub(crate) name: ByteString,
    pub(crate) arguments: usize,
    pub(crate) uploads: usize,
    pub(crate) is_streaming: bool,
    pub(crate) metrics: MethodMetrics,
    filters: Filters,
    policies: Policies,
    code: OnceLock<CodeId>,
    call: Box<MethodFn>,
}

impl Method {
    pub(crate) fn within(self, filters: Filters, policies: Policies) -> Self {
        Self { filters, policies, ..self }
    }

    pub(crate) fn code(&self, hub: &str) -> CodeId {
        *self.code.get_or_init(|| CodeId::for_name(hub, &self.name))
    }

    /// Calls the method within its filters. Nothing runs before the future is polled.
    pub(crate) fn call(&self, input: CallInput) -> ReplyFuture {
        let filtered = || HubCall::of_method(&self.name, self.uploads, self.is_streaming, &input);
        let filtered = (!self.filters.is_empty()).then(filtered);
        let reply = match self.policies.check(&input.context) {
            Ok(()) => (self.call)(input),
            Err(error) => Box::pin(future::ready(Err(error))),
        };
        match filtered {
            Some(call) => self.filters.wrap(call, reply),
            None => reply,
        }
    }

    pub(crate) fn has_streams(&self) -> bool {
        self.is_streaming || self.uploads > 0
    }
}

pub(crate) fn bindable<S: Clone + Send + Sync + 'static, M: 'static, H: Handler<S, M>>(
    name: ByteString,
    handler: H,
) -> Bindable<S, Method> {
    Bindable::new(move |state: &S| {
        let state = state.clone();
        Method {
            name,
            arguments: H::ARGUMENTS,
            uploads: H::UPLOADS,
            is_streaming: H::IS_STREAMING,
            metrics: MethodMetrics::default(),
            filters: Filters::default(),
            policies: Policies::default(),
            code: OnceLock::new(),
            call: Box::new(move |input| Box::pin(handler.clone().call(Call::new(input, state.clone())))),
        }
    })
}
