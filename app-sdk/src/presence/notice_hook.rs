//! Async functions as presence hooks, with a notice and extractors as parameters.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{FromRef, State};

use super::notice::{GroupChanged, UserOffline, UserOnline};
use crate::brief_debug::brief_debug;
use crate::clients::{Clients, Groups, Users};
use crate::error::HubError;
use crate::handler::arity::for_each_arity;
use crate::handler::{Bindable, IntoEnd};
use crate::hub_core::HubCore;

/// An async function that can be a presence hook, such as `on_user_online`: at most ten parameters that implement
/// [`FromNotice`], and the result `()` or `Result<(), HubError>` ([`IntoEnd`]).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no presence hook with `{N}`",
    label = "not an async function of the notice and extractors that ends in `()` or `Result<(), HubError>`",
    note = "parameters: `{N}`, `Clients`, `Groups`, `Users`, `HubHandle`, `State<T>`; there is no `Context`, because \
            no client calls it",
    note = "result: `()` or `Result<(), trunkline::HubError>`",
    note = "the future must be `Send`: nothing like `Rc` or a lock's guard may live across an `.await`"
)]
pub trait NoticeHook<S, N, M>: Clone + Send + Sync + Sized + 'static {
    #[doc(hidden)]
    fn run(self, notice: N, hub: NoticeHub, state: S) -> impl Future<Output = Result<(), HubError>> + Send + 'static;
}

/// A parameter of a presence hook: the notice, or access to the hub.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a parameter of a presence hook with `{N}`",
    label = "neither `{N}` nor `Clients`, `Groups`, `Users`, `HubHandle`, `State<T>`",
    note = "`State<T>` needs a hub with a state that provides a `T`: `.with_state(…)`, and `axum::extract::FromRef` \
            for its parts"
)]
pub trait FromNotice<S, N>: Sized {
    #[doc(hidden)]
    fn from_notice(notice: &N, hub: &NoticeHub, state: &S) -> Self;
}

/// Hub of a notice.
#[doc(hidden)]
#[derive(Clone)]
pub struct NoticeHub(pub(crate) Arc<HubCore>);

pub(super) type NoticeFuture = Pin<Box<dyn Future<Output = Result<(), HubError>> + Send>>;

pub(crate) type ErasedNoticeHook<N> = Box<dyn Fn(N, NoticeHub) -> NoticeFuture + Send + Sync>;

pub(crate) fn bindable_notice<S: Clone + Send + Sync + 'static, N: 'static, M: 'static>(
    hook: impl NoticeHook<S, N, M>,
) -> Bindable<S, ErasedNoticeHook<N>> {
    Bindable::new(move |state: &S| {
        let state = state.clone();
        let erased: ErasedNoticeHook<N> =
            Box::new(move |notice, hub| Box::pin(hook.clone().run(notice, hub, state.clone())));
        erased
    })
}

macro_rules! function_as_notice_hook {
    ($(($marker:ident, $parameter:ident, $name:ident)),*) => {
        impl<S, N, F, Fut, R, $($parameter,)*> NoticeHook<S, N, (R, $($parameter,)*)> for F
        where
            F: Fn($($parameter),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoEnd,
            S: Send + 'static,
            N: Send + 'static,
            $($parameter: FromNotice<S, N> + Send + 'static,)*
        {
            fn run(self, notice: N, hub: NoticeHub, state: S) -> impl Future<Output = Result<(), HubError>> + Send + 'static {
                async move {
                    $(let $name = <$parameter as FromNotice<S, N>>::from_notice(&notice, &hub, &state);)*
                    drop((notice, hub, state));
                    self($($name),*).await.into_end()
                }
            }
        }
    };
}
for_each_arity!(function_as_notice_hook);

macro_rules! notice_as_parameter {
    ($($notice:ty),*) => {
        $(impl<S> FromNotice<S, $notice> for $notice {
            fn from_notice(notice: &$notice, _hub: &NoticeHub, _state: &S) -> Self {
                notice.clone()
            }
        })*
    };
}
notice_as_parameter!(UserOnline, UserOffline, GroupChanged);

/// A part of the hub's state.
impl<S, N, T: FromRef<S>> FromNotice<S, N> for State<T> {
    fn from_notice(_notice: &N, _hub: &NoticeHub, state: &S) -> Self {
        State(T::from_ref(state))
    }
}

impl<S, N> FromNotice<S, N> for Clients {
    fn from_notice(_notice: &N, hub: &NoticeHub, _state: &S) -> Self {
        Clients::new(&hub.0)
    }
}

impl<S, N> FromNotice<S, N> for Groups {
    fn from_notice(_notice: &N, hub: &NoticeHub, _state: &S) -> Self {
        Groups::new(&hub.0)
    }
}

impl<S, N> FromNotice<S, N> for Users {
    fn from_notice(_notice: &N, hub: &NoticeHub, _state: &S) -> Self {
        Users::new(&hub.0)
    }
}

brief_debug!(NoticeHub, |it| "NoticeHub({})", it.0.name());
