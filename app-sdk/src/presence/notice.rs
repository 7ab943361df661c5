//! Notices passed to presence hooks, and async functions as such hooks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{FromRef, State};

use crate::brief_debug::brief_debug;
use crate::clients::{Clients, Groups, Member, Users};
use crate::error::HubError;
use crate::handler::hook::for_each_arity;
use crate::handler::{Bindable, IntoEnd};
use crate::hub_core::HubCore;

/// A user's first connection, on any proxy, for [`Hub::on_user_online`](crate::Hub::on_user_online).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserOnline {
    /// ID of the user.
    pub user_id: String,
}

/// A user without connections for the grace period, for [`Hub::on_user_offline`](crate::Hub::on_user_offline).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserOffline {
    /// ID of the user.
    pub user_id: String,
}

/// Connections have joined or left a group, for [`Hub::on_group_changed`](crate::Hub::on_group_changed).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupChanged {
    /// Name of the group.
    pub group: String,
    /// Connections that have joined.
    pub joined: Vec<Member>,
    /// Connections that have left.
    pub left: Vec<Member>,
    /// Number of members after this change, as known to this app server: connections, not users, as in
    /// [`Groups::count`](crate::Groups::count).
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    Online(UserOnline),
    Offline(UserOffline),
    Group(GroupChanged),
}

impl GroupChanged {
    pub(super) fn with_count(group: &str, count: u64) -> Self {
        Self { group: group.to_owned(), joined: Vec::new(), left: Vec::new(), count }
    }
}

impl Notice {
    pub(super) fn hook_name(&self) -> &'static str {
        match self {
            Self::Online(_) => "on_user_online",
            Self::Offline(_) => "on_user_offline",
            Self::Group(_) => "on_group_changed",
        }
    }

    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Online(UserOnline { user_id }) | Self::Offline(UserOffline { user_id }) => {
                Subject::User(Arc::from(user_id.as_str()))
            }
            Self::Group(change) => Subject::Group(Arc::from(change.group.as_str())),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Subject {
    User(Arc<str>),
    Group(Arc<str>),
}

impl Subject {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Group(name) => name,
        }
    }
}

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
