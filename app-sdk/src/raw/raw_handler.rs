//! Handlers of raw connections: async functions.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{FromRef, State};

use super::raw_connection::RawConnection;
use crate::error::HubError;
use crate::handler::IntoEnd;

/// Handler of a raw endpoint with its state.
pub(crate) type RawServe = Arc<dyn Fn(RawConnection) -> ServeFuture + Send + Sync>;

pub(crate) type ServeFuture = Pin<Box<dyn Future<Output = Result<(), HubError>> + Send>>;

/// An async function that can handle raw connections: up to four [`State`] parameters, and [`RawConnection`] last.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't serve raw connections",
    label = "not an async function of `State<T>`… and `RawConnection`",
    note = "parameters: `State<T>`, at most four of them, and `RawConnection` last",
    note = "result: `()` or `Result<(), trunkline::HubError>`",
    note = "the future must be `Send`: nothing like `Rc` may live across an `.await`"
)]
pub trait RawHandler<S, M>: Clone + Send + Sync + Sized + 'static {
    /// Handles one connection until it ends.
    #[doc(hidden)]
    fn call(self, state: S, connection: RawConnection) -> ServeFuture;
}

macro_rules! function_as_raw_handler {
    ($($state:ident),*) => {
        impl<S, F, Fut, R, $($state,)*> RawHandler<S, (R, $($state,)*)> for F
        where
            F: Fn($(State<$state>,)* RawConnection) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send + 'static,
            R: IntoEnd + 'static,
            S: Send + 'static,
            $($state: FromRef<S> + 'static,)*
        {
            fn call(self, state: S, connection: RawConnection) -> ServeFuture {
                // The impl without state parameters does not use it.
                let _ = &state;
                let serving = self($(State($state::from_ref(&state)),)* connection);
                Box::pin(async move { serving.await.into_end() })
            }
        }
    };
}

function_as_raw_handler!();
function_as_raw_handler!(T1);
function_as_raw_handler!(T1, T2);
function_as_raw_handler!(T1, T2, T3);
function_as_raw_handler!(T1, T2, T3, T4);
