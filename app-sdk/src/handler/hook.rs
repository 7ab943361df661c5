//! Macro that implements a trait for functions with up to ten parameters, and async functions as hooks: they take
//! extractors, and their result accepts or closes the client.

use std::future::Future;
use std::pin::Pin;

use crate::call::marker::OfExtractor;
use crate::call::{Call, CallInput, FromCall};
use crate::error::HubError;

/// Calls a macro once per number of parameters, with a marker, a type and a name for each parameter.
///
/// The compiler prints a marker that it cannot infer: that of a parameter which is both an extractor and
/// `Deserialize`.
macro_rules! for_each_arity {
    ($implement:ident) => {
        $crate::handler::hook::for_each_arity!($implement: [];
            (ExtractorXorDeserialize1, T1, p1) (ExtractorXorDeserialize2, T2, p2) (ExtractorXorDeserialize3, T3, p3)
            (ExtractorXorDeserialize4, T4, p4) (ExtractorXorDeserialize5, T5, p5) (ExtractorXorDeserialize6, T6, p6)
            (ExtractorXorDeserialize7, T7, p7) (ExtractorXorDeserialize8, T8, p8) (ExtractorXorDeserialize9, T9, p9)
            (ExtractorXorDeserialize10, T10, p10)
        );
    };
    ($implement:ident: [$($parameter:tt)*];) => {
        $implement!($($parameter),*);
    };
    ($implement:ident: [$($parameter:tt)*]; $next:tt $($rest:tt)*) => {
        $implement!($($parameter),*);
        $crate::handler::hook::for_each_arity!($implement: [$($parameter)* $next]; $($rest)*);
    };
}

pub(crate) use for_each_arity;

/// An async function that can be a hook of a hub, such as `on_connected`: at most ten extractors as parameters, and
/// the result `()` or `Result<(), HubError>` ([`IntoEnd`]).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a hook of a hub",
    label = "not an async function of extractors that ends in `()` or `Result<(), HubError>`",
    note = "parameters: `Context`, `State<T>`, … and types that implement `trunkline::FromContext`; no client gives a \
            hook arguments",
    note = "result: `()` or `Result<(), trunkline::HubError>`; no other error, no value, no stream",
    note = "the future must be `Send`: nothing like `Rc` or a lock's guard may live across an `.await`",
    note = "`#[trunkline::debug_hook]` on the function says which of these it is"
)]
pub trait Hook<S, M>: Clone + Send + Sync + Sized + 'static {
    #[doc(hidden)]
    fn run(self, call: Call<S>) -> impl Future<Output = Result<(), HubError>> + Send + 'static;
}

/// Result of a hook or of a handler of raw connections: `()` or `Result<(), HubError>`.
#[diagnostic::on_unimplemented(
    message = "a hook can't end in `{Self}`",
    label = "neither `()` nor `Result<(), trunkline::HubError>`",
    note = "another error or a `bool` would not close the client: return `Err(HubError::new(\"…\"))`"
)]
pub trait IntoEnd {
    /// Converts it to a `Result`.
    #[doc(hidden)]
    fn into_end(self) -> Result<(), HubError>;
}

#[diagnostic::do_not_recommend]
impl IntoEnd for () {
    fn into_end(self) -> Result<(), HubError> {
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl IntoEnd for Result<(), HubError> {
    fn into_end(self) -> Result<(), HubError> {
        self
    }
}

pub(crate) type EndFuture = Pin<Box<dyn Future<Output = Result<(), HubError>> + Send>>;

pub(crate) type ErasedHook = Box<dyn Fn(CallInput) -> EndFuture + Send + Sync>;

pub(crate) fn bindable<S: Clone + Send + Sync + 'static, M: 'static>(hook: impl Hook<S, M>) -> Bindable<S, ErasedHook> {
    Bindable::new(move |state: &S| {
        let state = state.clone();
        let erased: ErasedHook = Box::new(move |input| Box::pin(hook.clone().run(Call::new(input, state.clone()))));
        erased
    })
}

macro_rules! function_as_hook {
    ($(($marker:ident, $parameter:ident, $name:ident)),*) => {
        impl<S, F, Fut, R, $($marker, $parameter,)*> Hook<S, (R, $($marker, $parameter,)*)> for F
        where
            F: Fn($($parameter),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoEnd,
            S: Send + 'static,
            $($marker: OfExtractor, $parameter: FromCall<S, $marker> + Send + 'static,)*
        {
            fn run(self, mut call: Call<S>) -> impl Future<Output = Result<(), HubError>> + Send + 'static {
                async move {
                    $(let $name = <$parameter as FromCall<S, $marker>>::from_call(&mut call).await?;)*
                    // The impl without parameters does not use it.
                    let _ = &mut call;
                    drop(call);
                    self($($name),*).await.into_end()
                }
            }
        }
    };
}
for_each_arity!(function_as_hook);

/// A value that is created once the state of its hub is known.
pub(crate) struct Bindable<S, T>(Box<dyn FnOnce(&S) -> T + Send + Sync>);

impl<S: 'static, T: Send + Sync + 'static> Bindable<S, T> {
    pub(crate) fn new(make: impl FnOnce(&S) -> T + Send + Sync + 'static) -> Self {
        Self(Box::new(make))
    }

    pub(crate) fn bind(self, state: &S) -> T {
        (self.0)(state)
    }

    /// Creates the value for a hub that changes its state type afterwards.
    pub(crate) fn bind_early<S2: 'static>(self, state: &S) -> Bindable<S2, T> {
        let bound = self.bind(state);
        Bindable::new(|_| bound)
    }
}
