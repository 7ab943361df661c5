//! Builders of hubs and raw endpoints.

mod hub_settings;
mod methods;
mod raw_endpoint;

use std::time::Duration;

use axum::routing::MethodRouter;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::{HubManifest, RecordedNames, SlowClients, Transport};

use crate::brief_debug::brief_debug;
use crate::error::BuildError;
use crate::handler::filter::{BindableFilter, Filters};
use crate::handler::hook::{self, ErasedHook};
use crate::handler::policy::Policies;
use crate::handler::{self, Bindable, Filter, Handler, Hook, HubCallKind, Method, Policy};
use crate::naming::Naming;
use crate::presence::{
    ErasedNoticeHook, GroupChanged, NoticeHook, PresenceHooks, UserOffline, UserOnline, bindable_notice,
};
use crate::raw::RawServe;
#[cfg(feature = "typescript")]
use crate::typescript::{SignatureFn, TypedHandler, TypedMethods};

pub(crate) use hub_settings::HubSettings;
use hub_settings::{check_history, check_sub_protocols, checked_name, millis};
pub(crate) use methods::MethodTable;
pub use methods::Methods;
pub use raw_endpoint::RawEndpoint;

/// Method of nodes in hubs with records, unless their option `--history-method` renames it.
const FOLLOW_METHOD: &str = "Follow";

/// A hub: methods that clients can call at a path.
///
/// Like axum's `Router`, it is generic over its missing state. [`with_state`](Self::with_state) provides the state,
/// and methods extract it as [`State<T>`](axum::extract::State).
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use axum::extract::State;
/// use trunkline::{Context, Hub, HubError, Server};
///
/// #[derive(Clone, Default)]
/// struct Counter(Arc<AtomicU64>);
///
/// async fn count(State(counter): State<Counter>, by: u64) -> u64 {
///     counter.0.fetch_add(by, Ordering::Relaxed) + by
/// }
///
/// async fn hello(ctx: Context) -> Result<(), HubError> {
///     ctx.clients().others().send("Joined", (ctx.connection_id(),)).await?;
///     Ok(())
/// }
///
/// let hub = Hub::new("/counter").on_connected(hello).method("Count", count).with_state(Counter::default());
/// let server = Server::new().hub(hub);
/// ```
#[must_use = "a hub does nothing until it is added to a server"]
pub struct Hub<S = ()> {
    pub(crate) path: String,
    name: Option<String>,
    settings: HubSettings,
    methods: Methods<S>,
    filters: Vec<BindableFilter<S>>,
    policies: Policies,
    hooks: Vec<(HubCallKind, Bindable<S, ErasedHook>)>,
    on_user_online: Vec<Bindable<S, ErasedNoticeHook<UserOnline>>>,
    on_user_offline: Vec<Bindable<S, ErasedNoticeHook<UserOffline>>>,
    on_group_changed: Vec<Bindable<S, ErasedNoticeHook<GroupChanged>>>,
    on_leaving: Option<Bindable<S, Method>>,
    on_negotiate: Option<MethodRouter<S>>,
}

/// A hub that can be added to a server: all of its methods have their state.
#[diagnostic::on_unimplemented(
    message = "the state of this hub is missing: call `.with_state(…)` on it",
    label = "a `{Self}` still waits for its state",
    note = "methods take the state as `State<…>`; `.with_state(value)` provides the state and returns the `Hub`"
)]
pub trait CompleteHub: sealed::SealedHub {
    #[doc(hidden)]
    fn complete(self) -> Hub;
}

mod sealed {
    pub trait SealedHub {}
}

impl sealed::SealedHub for Hub {}

#[diagnostic::do_not_recommend]
impl CompleteHub for Hub {
    fn complete(self) -> Hub {
        self
    }
}

pub(crate) struct BuiltHub {
    pub(crate) manifest: HubManifest,
    pub(crate) settings: HubSettings,
    pub(crate) methods: MethodTable,
    pub(crate) presence: PresenceHooks,
    pub(crate) on_negotiate: Option<MethodRouter>,
    /// Handler of a raw endpoint, which has no methods.
    pub(crate) raw: Option<RawServe>,
}

impl<S: Clone + Send + Sync + 'static> Hub<S> {
    /// A hub at `path`, such as `/chat`, case-insensitive. Its name is the last segment of the path. All defaults are
    /// those of the official server.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            name: None,
            settings: HubSettings::default(),
            methods: Methods::new(),
            filters: Vec::new(),
            policies: Policies::default(),
            hooks: Vec::new(),
            on_user_online: Vec::new(),
            on_user_offline: Vec::new(),
            on_group_changed: Vec::new(),
            on_leaving: None,
            on_negotiate: None,
        }
    }

    /// Sets the name for links, logs and metrics; by default the last segment of the path.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a method with this case-insensitive name. A call with a different number of arguments fails without
    /// reaching the method. Duplicate names are an error when the server is built.
    pub fn method<H: Handler<S, M>, M: 'static>(mut self, name: impl Into<String>, handler: H) -> Self {
        self.methods = self.methods.method(name, handler);
        self
    }

    /// Adds a method for clients that meet the [policy](Policy). Other callers get the official server's error.
    pub fn guarded<H: Handler<S, M>, M: 'static>(
        mut self,
        name: impl Into<String>,
        policy: Policy,
        handler: H,
    ) -> Self {
        self.methods = self.methods.guarded(name, policy, handler);
        self
    }

    /// Like [`method`](Self::method), and also includes the method's types in the generated
    /// [TypeScript](crate::typescript).
    #[cfg(feature = "typescript")]
    pub fn typed_method<H: TypedHandler<S, M>, M: 'static>(mut self, name: impl Into<String>, handler: H) -> Self {
        self.methods = self.methods.typed_method(name, handler);
        self
    }

    /// Like [`guarded`](Self::guarded), and also includes the method's types in the generated
    /// [TypeScript](crate::typescript).
    #[cfg(feature = "typescript")]
    pub fn typed_guarded<H: TypedHandler<S, M>, M: 'static>(
        mut self,
        name: impl Into<String>,
        policy: Policy,
        handler: H,
    ) -> Self {
        self.methods = self.methods.typed_guarded(name, policy, handler);
        self
    }

    /// Adds all methods of a module, with the module's own filters and policies.
    pub fn methods(mut self, methods: Methods<S>) -> Self {
        self.methods = self.methods.methods(methods);
        self
    }

    /// Adds code around every method and hook. The first filter is the outermost; filters of a [module of
    /// methods](Methods::filter) are further inside and do not see hooks.
    ///
    /// A filter is an async function of any extractors, the call, and the rest of the chain. It sees every call, in
    /// starting order, even if it matches no method or an extractor or a [policy](Policy) refuses it;
    /// [`next.run`](crate::Next::run) then returns the error. The result of the filter is sent to the client. Of a
    /// stream it sees the creation, but not the items. [`HubCall::kind`](crate::HubCall::kind) distinguishes methods
    /// from hooks; an error instead of `on_connected` closes the client.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use axum::extract::State;
    /// use trunkline::{Context, Hub, HubCall, HubCallKind, HubError, Next, Reply};
    ///
    /// #[derive(Clone, Default)]
    /// struct Refusals(Arc<AtomicU64>);
    ///
    /// async fn members_only(ctx: Context, call: HubCall, next: Next) -> Result<Reply, HubError> {
    ///     if call.kind() == HubCallKind::Method && call.method() != "LogIn" && ctx.user_id().is_none() {
    ///         return Err(HubError::new("log in first")); // the method is not called
    ///     }
    ///     next.run(call).await
    /// }
    ///
    /// async fn count(State(refusals): State<Refusals>, call: HubCall, next: Next) -> Result<Reply, HubError> {
    ///     let reply = next.run(call).await;
    ///     if reply.is_err() {
    ///         refusals.0.fetch_add(1, Ordering::Relaxed);
    ///     }
    ///     reply
    /// }
    ///
    /// let hub: Hub = Hub::new("/club")
    ///     .filter(count)
    ///     .filter(members_only)
    ///     .method("LogIn", async || true)
    ///     .with_state(Refusals::default());
    /// ```
    ///
    /// Methods extract a value that a filter [inserts](crate::HubCall::insert) into the call as
    /// [`Extension`](axum::Extension): for example a transaction per call, which the filter commits if the method
    /// succeeds.
    pub fn filter<F: Filter<S, M>, M: 'static>(mut self, filter: F) -> Self {
        self.filters.push(BindableFilter::new(filter));
        self
    }

    /// Restricts the hub to clients that meet the [policy](Policy). Others, including clients without a user, are
    /// refused with 403 when they negotiate, or when they connect without negotiation. A client that connects as a
    /// different user than it negotiated is closed before `on_connected`. Refusals are logged at level `info`.
    ///
    /// As with [`on_negotiate`](Self::on_negotiate), proxies ask an app server about each new client, and refuse the
    /// client with 503 if none answers.
    pub fn require(mut self, policy: Policy) -> Self {
        self.policies.add_policy(policy);
        self
    }

    /// Restricts the hub to users with this claim; see [`require`](Self::require).
    pub fn require_claim(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.require(Policy::claim(name, value))
    }

    /// Restricts the hub to authenticated clients; an alias of
    /// [`require_authentication`](Self::require_authentication).
    pub fn require_user(self) -> Self {
        self.require_authentication()
    }

    /// Lists each method with the policies that its callers must meet, those of the hub first. For tests, or to
    /// display permissions.
    ///
    /// ```
    /// use trunkline::{Hub, Policy};
    ///
    /// let hub: Hub = Hub::new("/pages")
    ///     .require(Policy::user())
    ///     .method("Read", async || "text")
    ///     .guarded("Clear", Policy::claim("role", "admin"), async || ());
    /// let table: Vec<_> = hub.policies().map(|(method, policies)| format!("{method}: {policies:?}")).collect();
    /// assert_eq!(table[1], r#"Clear: [Policy("a user"), Policy("claim role = admin")]"#);
    /// ```
    pub fn policies(&self) -> impl Iterator<Item = (&str, Vec<&Policy>)> {
        self.methods.policies().map(|(method, own)| (method, self.policies.iter().chain(own).collect()))
    }

    /// Called when a client has connected and can receive messages, before any of its own messages. If it fails, the
    /// client is closed with an error, without `on_disconnected`. Takes extractors only. Several hooks run in the order
    /// of their addition, up to the first failure.
    pub fn on_connected<H: Hook<S, M>, M: 'static>(mut self, hook: H) -> Self {
        self.hooks.push((HubCallKind::Connected, hook::bindable(hook)));
        self
    }

    /// Called once when a client has disconnected and its running methods have ended. If the client disconnects while
    /// no app server has it, for example after a crash, the hook runs on the next app server, without
    /// [`on_connected`](Self::on_connected) or [`on_rehomed`](Self::on_rehomed): all data that the hook needs must be
    /// in the connect request, the claims or a store. Takes extractors only, including
    /// [`CloseReason`](crate::call::CloseReason). Several hooks run in the order of their addition, even if one fails.
    pub fn on_disconnected<H: Hook<S, M>, M: 'static>(mut self, hook: H) -> Self {
        self.hooks.push((HubCallKind::Disconnected, hook::bindable(hook)));
        self
    }

    /// Called instead of `on_connected` when this app server takes over a client after the loss of its app server or
    /// link; the previous app server has not called `on_disconnected`. Groups and user are unchanged.
    /// [Items](crate::Context::items), which were in the memory of the previous app server, are empty. If the hook
    /// fails, the client is closed with an error and may reconnect. Takes extractors only, including
    /// [`Rehomed`](crate::Rehomed), which provides the client's origin and items from [`on_leaving`](Self::on_leaving).
    pub fn on_rehomed<H: Hook<S, M>, M: 'static>(mut self, hook: H) -> Self {
        self.hooks.push((HubCallKind::Rehomed, hook::bindable(hook)));
        self
    }

    /// Called when a client has refreshed its authentication: [`Context::claims`](crate::Context::claims) returns the
    /// new claims. Methods of the client may run concurrently. If it fails, the client is closed with an error and
    /// may reconnect. Takes extractors only. See [`authentication_refresh`](Self::authentication_refresh).
    pub fn on_refreshed<H: Hook<S, M>, M: 'static>(mut self, hook: H) -> Self {
        self.hooks.push((HubCallKind::Refreshed, hook::bindable(hook)));
        self
    }

    /// Called for each client, after its running methods have ended, when this app server [shuts
    /// down](crate::ServerHandle::shutdown) and another one takes over the client. The result, at most 16 KiB
    /// encoded, is passed to [`on_rehomed`](Self::on_rehomed) there. Takes extractors only. If set several times, the
    /// last hook is used.
    pub fn on_leaving<H: Handler<S, M>, M: 'static>(mut self, handler: H) -> Self {
        const { assert!(H::ARGUMENTS == 0, "on_leaving takes extractors only: no client gives it arguments") };
        const { assert!(H::UPLOADS == 0, "on_leaving takes extractors only: no client uploads to it") };
        const { assert!(!H::IS_STREAMING, "on_leaving hands a value over, not a stream") };
        self.on_leaving = Some(handler::bindable("on_leaving".into(), handler));
        self
    }

    /// Called for the first connection of a user on any proxy. Not called for a second tab, even on another proxy, or
    /// for a client that returns within the [grace period](Self::presence_grace). Takes the notice, and extractors
    /// that need no client: [`Clients`](crate::Clients), [`Groups`](crate::Groups), [`Users`](crate::Users),
    /// [`HubHandle`](crate::HubHandle), [`State`](axum::extract::State).
    ///
    /// Called on one app server of the hub. If it crashes, others repeat its notices of the last minute, so a notice
    /// may arrive twice; see the page *Presence* of the book. Notices about one user are ordered. Query users who were
    /// online before the app started with [`Users::online`](crate::Users::online).
    ///
    /// ```
    /// use trunkline::{Clients, GroupChanged, Hub, HubError, UserOffline, UserOnline};
    ///
    /// async fn online(user: UserOnline, clients: Clients) -> Result<(), HubError> {
    ///     clients.all().send("Online", (user.user_id,)).await?;
    ///     Ok(())
    /// }
    ///
    /// async fn offline(user: UserOffline, clients: Clients) -> Result<(), HubError> {
    ///     clients.all().send("Offline", (user.user_id,)).await?;
    ///     Ok(())
    /// }
    ///
    /// async fn changed(room: GroupChanged, clients: Clients) -> Result<(), HubError> {
    ///     clients.group(&room.group).send("Members", (room.count,)).await?;
    ///     Ok(())
    /// }
    ///
    /// let hub: Hub = Hub::new("/chat").on_user_online(online).on_user_offline(offline).on_group_changed(changed);
    /// ```
    pub fn on_user_online<H: NoticeHook<S, UserOnline, M>, M: 'static>(mut self, hook: H) -> Self {
        self.on_user_online.push(bindable_notice(hook));
        self
    }

    /// Called when a user has had no connection for the [grace period](Self::presence_grace). Otherwise like
    /// [`on_user_online`](Self::on_user_online). If a proxy crashes, its users are offline after the grace period
    /// unless they reconnect through another proxy.
    pub fn on_user_offline<H: NoticeHook<S, UserOffline, M>, M: 'static>(mut self, hook: H) -> Self {
        self.on_user_offline.push(bindable_notice(hook));
        self
    }

    /// Called when connections have joined or left a group. Changes within a short time are combined, at most 1000 per
    /// notice. For the choice of app server and the parameters, see [`on_user_online`](Self::on_user_online). For this,
    /// each app server of the hub stores the members of all groups, about 200 bytes each.
    pub fn on_group_changed<H: NoticeHook<S, GroupChanged, M>, M: 'static>(mut self, hook: H) -> Self {
        self.on_group_changed.push(bindable_notice(hook));
        self
    }

    /// Sets how long a user must have no connection before [`on_user_offline`](Self::on_user_offline) is called; 5 s
    /// by default, enough to reload a page or to reconnect through another proxy.
    pub fn presence_grace(mut self, grace: Duration) -> Self {
        self.settings.presence_grace = grace;
        self
    }

    /// Sets the time limit of a hook; 60 s by default. At the limit, the hook is dropped at its `await` and counts as
    /// failed: a client that is connecting or reassigned is closed; presence hooks continue with the next notice.
    /// A hook that runs longer than 5 s is logged by name.
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.settings.limits.hook_timeout = timeout;
        self
    }

    /// Authenticates and admits each client that negotiates, or that connects without negotiation. Accepts any axum
    /// handler. The handler sees the client's headers (including cookies), path and query, but no body;
    /// [`ConnectInfo`](axum::extract::ConnectInfo) is the client's address. A second handler replaces the first.
    ///
    /// - A [`Negotiation`](crate::Negotiation) response admits the client or redirects it. The client receives its
    ///   headers, such as cookies.
    /// - Any other response refuses the client, and is passed to it unchanged: status, headers, body.
    ///
    /// The proxy itself verifies access tokens, so the handler is for cookies, sessions, and the app's own tokens in
    /// the `Authorization` header. The extractor [`User`](crate::User) provides a user that the proxy has verified, for
    /// example to check for a ban. If the app does not answer in time, clients are refused with 503.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::Arc;
    ///
    /// use axum::extract::State;
    /// use axum::http::header::SET_COOKIE;
    /// use axum::http::{HeaderMap, StatusCode};
    /// use axum::response::IntoResponse;
    /// use trunkline::{Hub, Negotiation};
    ///
    /// #[derive(Clone)]
    /// struct Sessions(Arc<HashMap<String, String>>);
    ///
    /// async fn members_only(
    ///     State(sessions): State<Sessions>,
    ///     headers: HeaderMap,
    /// ) -> Result<impl IntoResponse, (StatusCode, &'static str)> {
    ///     let cookie = headers.get("cookie").and_then(|cookie| cookie.to_str().ok()).unwrap_or_default();
    ///     let session = cookie.split("; ").find_map(|pair| pair.strip_prefix("session="));
    ///     let user = session.and_then(|session| sessions.0.get(session));
    ///     let user = user.ok_or((StatusCode::UNAUTHORIZED, "log in first"))?;
    ///     Ok(([(SET_COOKIE, "seen=1")], Negotiation::user(user).claim("role", "member")))
    /// }
    ///
    /// let hub: Hub = Hub::new("/club").on_negotiate(members_only).with_state(Sessions(Arc::default()));
    /// ```
    ///
    /// ```
    /// use axum::http::StatusCode;
    /// use trunkline::{Hub, Negotiation, User};
    ///
    /// async fn not_banned(user: User) -> Result<Negotiation, StatusCode> {
    ///     if user.id() == "mallory" { Err(StatusCode::FORBIDDEN) } else { Ok(Negotiation::new()) }
    /// }
    ///
    /// let hub: Hub = Hub::new("/board").on_negotiate(not_banned);
    /// ```
    pub fn on_negotiate<H: axum::handler::Handler<T, S>, T: 'static>(mut self, handler: H) -> Self {
        self.on_negotiate = Some(axum::routing::any(handler));
        self
    }

    /// Provides the state of the hub.
    pub fn with_state<S2: Clone + Send + Sync + 'static>(self, state: S) -> Hub<S2> {
        Hub {
            path: self.path,
            name: self.name,
            settings: self.settings,
            filters: self.filters.iter().map(|filter| filter.bind_early(&state)).collect(),
            policies: self.policies,
            hooks: self.hooks.into_iter().map(|(kind, hook)| (kind, hook.bind_early(&state))).collect(),
            on_user_online: self.on_user_online.into_iter().map(|hook| hook.bind_early(&state)).collect(),
            on_user_offline: self.on_user_offline.into_iter().map(|hook| hook.bind_early(&state)).collect(),
            on_group_changed: self.on_group_changed.into_iter().map(|hook| hook.bind_early(&state)).collect(),
            on_leaving: self.on_leaving.map(|method| method.bind_early(&state)),
            on_negotiate: self.on_negotiate.map(|handler| handler.with_state(state.clone())),
            methods: self.methods.with_state(state),
        }
    }

    /// Sets the hub protocols that clients may choose; all by default.
    pub fn protocols(mut self, protocols: impl IntoIterator<Item = HubProtocol>) -> Self {
        self.settings.protocols = protocols.into_iter().collect();
        self
    }

    /// Sets the names of fields and enums on the wire for all clients of the hub: serde's names by default, or those
    /// that .NET clients expect. See [`naming`](crate::naming).
    ///
    /// ```
    /// use trunkline::{Hub, Naming};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Seat { row_number: u32 } // {"rowNumber":4} in JSON, RowNumber in MessagePack
    ///
    /// let hub: Hub = Hub::new("/seats").naming(Naming::DotNet).method("Free", async || Seat { row_number: 4 });
    /// ```
    pub fn naming(mut self, naming: Naming) -> Self {
        self.settings.naming = naming;
        self
    }

    /// Sets the transports that clients may use, in order of preference; by default WebSockets, Server-Sent Events,
    /// long polling.
    pub fn transports(mut self, transports: impl IntoIterator<Item = Transport>) -> Self {
        self.settings.transports = transports.into_iter().collect();
        self
    }

    /// Sets the WebSocket sub-protocols (`Sec-WebSocket-Protocol`) of the hub; none by default. The first protocol in
    /// the client's list that the hub supports is selected. Case-sensitive.
    pub fn sub_protocols(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.sub_protocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses clients without a user with 401. The user comes from an access token or from the app's
    /// [`on_negotiate`](Self::on_negotiate).
    pub fn require_authentication(mut self) -> Self {
        self.settings.requires_authentication = true;
        self
    }

    /// Closes a client when its access token expires, and lets it reconnect with a new token (`accessTokenFactory` in
    /// the official clients). By default the connection stays open.
    pub fn close_on_token_expiry(mut self) -> Self {
        self.settings.close_on_token_expiry = true;
        self
    }

    /// Lets clients refresh their authentication without reconnecting: a client that supports it (the official .NET
    /// client since version 11) posts a newer access token of the same user to `POST HUB/refresh` before the old one
    /// expires. From then on its [claims](crate::Context::claims) come from the new token, also for
    /// [policies](crate::Policy), and [`on_refreshed`](Self::on_refreshed) runs.
    ///
    /// ```
    /// use trunkline::{Context, Hub, HubError};
    ///
    /// async fn refreshed(ctx: Context) -> Result<(), HubError> {
    ///     match ctx.claims().get("role") {
    ///         Some(_) => Ok(()),
    ///         None => Err(HubError::new("you have lost your role")),
    ///     }
    /// }
    /// let hub: Hub = Hub::new("/chat").close_on_token_expiry().authentication_refresh().on_refreshed(refreshed);
    /// ```
    pub fn authentication_refresh(mut self) -> Self {
        self.settings.refreshes_authentication = true;
        self
    }

    /// Sets the maximum size of a client message including framing; 32 KiB by default. A client that sends a larger
    /// message is closed.
    pub fn message_max_bytes(mut self, bytes: usize) -> Self {
        self.settings.limits.message_max_bytes = bytes;
        self
    }

    /// Sets the interval without sends after which a client is pinged; 15 s by default.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.settings.keep_alive_interval = interval;
        self
    }

    /// Sets the timeout after which a silent client is closed if it has sent a ping before; 30 s by default.
    pub fn client_timeout(mut self, timeout: Duration) -> Self {
        self.settings.limits.client_timeout = timeout;
        self
    }

    /// Sets the timeout of the hub handshake; 15 s by default.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// Lets clients resume their connection on a new socket, through any proxy: messages of both directions are
    /// buffered until acknowledged, and lost ones are resent. The app does not notice: calls, streams and groups
    /// continue. Requires clients that request it (`withStatefulReconnect` in the official ones) and WebSockets; a
    /// hub without that [transport](Self::transports) does not offer it. `false` by default.
    ///
    /// While such a client moves between proxies, sends to this client alone are delayed by some milliseconds.
    ///
    /// ```
    /// use trunkline::Hub;
    ///
    /// let hub: Hub = Hub::new("/chat").stateful_reconnect(true).stateful_reconnect_buffer_bytes(50_000);
    /// ```
    pub fn stateful_reconnect(mut self, is_allowed: bool) -> Self {
        self.settings.stateful_reconnect = is_allowed;
        self
    }

    /// Sets the size of a proxy's buffer of unacknowledged messages for each client with [stateful
    /// reconnect](Self::stateful_reconnect); 100 000 bytes by default, as in the official server. No effect without
    /// `stateful_reconnect`.
    pub fn stateful_reconnect_buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.stateful_reconnect_buffer_bytes = bytes;
        self
    }

    /// Sends names and texts of all errors to clients. For development: it reveals internals of the app.
    pub fn detailed_errors(mut self) -> Self {
        self.settings.detailed_errors = true;
        self
    }

    /// Sets how to treat slow clients: close them, or drop some broadcast messages. The proxies' options
    /// `--outbox-max-bytes` and `--slow-client-timeout` set the limits.
    pub fn slow_clients(mut self, slow_clients: SlowClients) -> Self {
        self.settings.slow_clients = slow_clients;
        self
    }

    /// Sets whether proxies with `--compress` compress messages of the hub's clients; true by default. Choose false if
    /// messages hold secrets beside text that others choose.
    ///
    /// ```
    /// use trunkline::Hub;
    ///
    /// let hub: Hub = Hub::new("/bank").compress(false);
    /// ```
    pub fn compress(mut self, is_permitted: bool) -> Self {
        self.settings.compress = is_permitted;
        self
    }

    /// Records the messages to groups with names like a pattern, such as `room-*`: nodes keep this number of messages
    /// of each group, for this time at most. Members receive each message as without a record. They can also follow
    /// the record by the stream `Follow`, which returns missed messages first, and by `EventSource`: see *Missed
    /// messages* in the book.
    ///
    /// A [send](crate::Receivers::send) to such a group completes when it is recorded and delivered at all nodes, with
    /// its [position](crate::Sent::position). If it can't be recorded it reaches no client. With an
    /// [id](crate::Receivers::id) it can be repeated safely. Sends to all clients, connections and other groups are not
    /// recorded. The nodes have to be one fleet (`--peers`). The first matching pattern counts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use trunkline::{Context, Hub, HubError};
    ///
    /// async fn say(ctx: Context, room: String, text: String) -> Result<(), HubError> {
    ///     let sent = ctx.clients().group(format!("room-{room}")).send("Said", (text,)).await?;
    ///     println!("recorded at {:?}", sent.position());
    ///     Ok(())
    /// }
    ///
    /// let hub: Hub = Hub::new("/chat").history("room-*", 1000, Duration::from_secs(3600)).method("Say", say);
    /// ```
    pub fn history(self, groups: impl Into<String>, messages: u32, age: Duration) -> Self {
        self.record(false, groups.into(), messages, age)
    }

    /// Records the messages to users with ids like a pattern, as [`history`](Self::history) does for groups. A user
    /// follows its own record.
    pub fn history_of_users(self, users: impl Into<String>, messages: u32, age: Duration) -> Self {
        self.record(true, users.into(), messages, age)
    }

    fn record(mut self, of_users: bool, names: String, messages: u32, age: Duration) -> Self {
        self.settings.history.push(RecordedNames { of_users, names, messages, age_ms: millis(age) });
        self
    }

    /// Sets the maximum size of a client's queue of received messages, before its proxy is asked to pause the client;
    /// 64 KiB by default.
    pub fn inbox_max_bytes(mut self, bytes: usize) -> Self {
        self.settings.limits.inbox_max_bytes = bytes;
        self
    }

    /// Sets the same limit for the time that a method of the client waits for a client result or an upload item,
    /// which may be queued behind all of it; 1 MiB by default. If it is exceeded, the wait fails.
    pub fn waiting_inbox_max_bytes(mut self, bytes: usize) -> Self {
        self.settings.limits.waiting_inbox_max_bytes = bytes;
        self
    }

    /// Sets how many items of an [upload](crate::UploadStream) are queued before the client is paused; 10 by default.
    pub fn upload_max_items(mut self, items: usize) -> Self {
        self.settings.limits.upload_max_items = items;
        self
    }

    /// Sets how many calls of one client run in parallel, starting in order; 1 by default. Methods with streams, and
    /// those waiting for a [client result](crate::Client::invoke), run in the background and do not count.
    pub fn parallel_invocations(mut self, calls: usize) -> Self {
        self.settings.limits.parallel_invocations = calls;
        self
    }

    /// Sets the timeout of a [client result](crate::Client::invoke); 30 s by default.
    pub fn client_result_timeout(mut self, timeout: Duration) -> Self {
        self.settings.limits.client_result_timeout = timeout;
        self
    }

    /// Sets the maximum number of pending [client results](crate::Client::invoke) of this hub on this app server; 65
    /// 536 by default.
    pub fn client_results_max(mut self, results: usize) -> Self {
        self.settings.limits.client_results_max = results;
        self
    }

    /// Sets the maximum length of group names, in bytes; 1 KiB by default. Proxies have limits of their own:
    /// `--group-name-max-bytes`, and `--groups-per-client-max` for the groups of one client.
    pub fn group_name_max_bytes(mut self, bytes: usize) -> Self {
        self.settings.limits.group_name_max_bytes = bytes;
        self
    }
}

impl Hub<()> {
    pub(crate) fn build(self) -> Result<BuiltHub, BuildError> {
        let name = checked_name(&self.path, self.name.as_deref())?;
        if self.settings.protocols.is_empty() {
            return Err(BuildError::NoProtocol(name));
        }
        if self.settings.transports.is_empty() {
            return Err(BuildError::NoTransport(name));
        }
        check_sub_protocols(&name, &self.settings.sub_protocols)?;
        check_history(&name, &self.settings.history)?;
        if millis(self.settings.keep_alive_interval) == 0 {
            return Err(BuildError::KeepAliveInterval(name));
        }
        let filters = Filters::bind(&self.filters, &());
        let mut methods = MethodTable {
            policies: self.policies,
            hooks: self.hooks.into_iter().map(|(kind, hook)| (kind, hook.bind(&()))).collect(),
            on_leaving: self.on_leaving.map(|method| method.bind(&())),
            filters: filters.clone(),
            ..MethodTable::default()
        };
        for method in self.methods.bind(&(), &filters) {
            methods.add_method(&name, method)?;
        }
        if !self.settings.history.is_empty() && methods.find(FOLLOW_METHOD).is_some() {
            return Err(BuildError::FollowMethod(name));
        }
        let presence = PresenceHooks {
            on_user_online: self.on_user_online.into_iter().map(|hook| hook.bind(&())).collect(),
            on_user_offline: self.on_user_offline.into_iter().map(|hook| hook.bind(&())).collect(),
            on_group_changed: self.on_group_changed.into_iter().map(|hook| hook.bind(&())).collect(),
        };
        let on_negotiate = self.on_negotiate;
        let manifest = HubManifest {
            asks_app: on_negotiate.is_some() || !methods.policies.is_empty(),
            presence: presence.scope(),
            ..self.settings.manifest(&name, &self.path)
        };
        Ok(BuiltHub { manifest, settings: self.settings, methods, presence, on_negotiate, raw: None })
    }
}

#[cfg(feature = "typescript")]
impl<S: Clone + Send + Sync + 'static> TypedMethods for Hub<S> {
    fn signatures(&self) -> impl Iterator<Item = (&str, Option<SignatureFn>)> {
        self.methods.signatures()
    }
}

brief_debug!(Hub<S>, |it| { path: it.path, methods: it.methods });

#[cfg(test)]
mod tests {
    use axum::extract::State;

    use trunkline_protocol::manifest::Authentication;

    use super::*;
    use crate::{CloseReason, Context, HubError, UploadStream};

    async fn nothing() {}

    fn built(hub: Hub) -> BuiltHub {
        hub.build().unwrap()
    }

    fn arguments<H: Handler<S, M>, S: Clone + Send + Sync + 'static, M: 'static>(_handler: H) -> usize {
        H::ARGUMENTS
    }

    #[test]
    fn only_arguments_of_the_client_are_counted() {
        async fn mixed(_: Context, _: String, _: State<u8>, _: Vec<u8>, _: CloseReason) -> Result<u8, HubError> {
            Ok(1)
        }
        #[expect(clippy::too_many_arguments, reason = "ten are allowed, so ten are tried")]
        async fn ten(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: Option<String>) {}
        assert_eq!(arguments::<_, (), _>(nothing), 0);
        assert_eq!(arguments::<_, u8, _>(mixed), 2);
        assert_eq!(arguments::<_, (), _>(ten), 10);
        assert_eq!(arguments::<_, (), _>(|_: Context, x: i32| async move { x }), 1);
    }

    #[test]
    fn streams_and_values_have_different_kinds() {
        fn kind<H: Handler<(), M>, M: 'static>(_handler: H) -> (usize, usize, bool) {
            (H::ARGUMENTS, H::UPLOADS, H::IS_STREAMING)
        }
        async fn streams(_: u8) -> Result<impl futures_util::Stream<Item = Result<u8, HubError>>, HubError> {
            Ok(futures_util::stream::empty())
        }
        async fn takes(_: UploadStream<u8>, _: u8, _: Context, _: UploadStream<String>) -> Vec<u8> {
            Vec::new()
        }
        assert_eq!(kind(nothing), (0, 0, false));
        assert_eq!(kind(streams), (1, 0, true));
        assert_eq!(kind(takes), (1, 2, false));
        assert_eq!(kind(async |both: UploadStream<u8>| both), (0, 1, true));
    }

    #[test]
    fn a_hub_is_named_after_its_path_unless_it_has_a_name() {
        assert_eq!(built(Hub::new("/live/chat")).manifest.name, "chat");
        let hub = built(Hub::new("/chat").name("talk"));
        assert_eq!((hub.manifest.name.as_str(), hub.manifest.path.as_str()), ("talk", "/chat"));
        assert_eq!(built(Hub::new("/").name("root")).manifest.path, "/");
    }

    #[test]
    fn an_unusable_path_is_refused() {
        for path in ["chat", "/chat/", "/chat?x=1", ""] {
            assert!(matches!(Hub::new(path).build(), Err(BuildError::Path(_))), "{path}");
        }
        let error = Hub::new("/rooms/{id}").build().err().unwrap().to_string();
        assert!(error.contains("put variable parts into the query"), "{error}");
        assert!(matches!(Hub::new("/").build(), Err(BuildError::NoName(_))));
    }

    #[test]
    fn methods_ignore_case_and_have_unique_names() {
        let hub = built(Hub::new("/chat").method("SendMessage", nothing));
        for name in ["SendMessage", "sendmessage", "SENDMESSAGE"] {
            assert!(hub.methods.find(name).is_some(), "{name}");
        }
        assert!(hub.methods.find("Send").is_none());
        let doubled = Hub::new("/chat").method("Send", nothing).method("send", nothing).build();
        assert!(matches!(doubled, Err(BuildError::DuplicateMethod { .. })));
    }

    #[test]
    fn records_have_limits_and_take_the_name_of_a_method() {
        let hour = Duration::from_secs(3600);
        let recorded = || Hub::new("/chat").history("room-*", 100, hour).history_of_users("*", 1, hour);
        let history = built(recorded()).manifest.history;
        assert_eq!(
            history.iter().map(|it| (it.of_users, &*it.names)).collect::<Vec<_>>(),
            [(false, "room-*"), (true, "*")]
        );
        for (names, messages, age) in [("", 1, hour), ("a", 0, hour), ("a", 1, Duration::ZERO), ("a", 1, hour * 1000)] {
            let built = Hub::new("/chat").history(names, messages, age).build();
            assert!(matches!(built, Err(BuildError::History { .. })), "{names} {messages} {age:?}");
        }
        assert!(matches!(recorded().method("follow", nothing).build(), Err(BuildError::FollowMethod(_))));
        assert!(Hub::new("/chat").method("Follow", nothing).build().is_ok());
    }

    #[test]
    fn settings_reach_the_manifest() {
        let hub = built(
            Hub::new("/chat")
                .protocols([HubProtocol::Json])
                .transports([Transport::LongPolling])
                .sub_protocols(["v1.chat"])
                .client_timeout(Duration::from_secs(5))
                .detailed_errors(),
        );
        assert_eq!(hub.manifest.transports, [Transport::LongPolling]);
        assert_eq!(hub.manifest.protocols, ["json"]);
        assert_eq!(hub.manifest.sub_protocols, ["v1.chat"]);
        for bad in ["", "v1 chat", "v1,v2"] {
            let built = Hub::new("/chat").sub_protocols([bad]).build();
            assert!(matches!(built, Err(BuildError::SubProtocol { .. })), "{bad}");
        }
        assert_eq!(hub.manifest.client_timeout_ms, 5000);
        assert!(hub.manifest.detailed_errors);
        let guarded = built(Hub::new("/chat").require_authentication().close_on_token_expiry()).manifest;
        assert_eq!(guarded.authentication, Authentication::Required);
        let stateful = |hub: Hub| built(hub).manifest.stateful_reconnect_buffer_bytes;
        assert_eq!(stateful(Hub::new("/chat").stateful_reconnect(true)), Some(100_000));
        let sized = || Hub::new("/chat").stateful_reconnect_buffer_bytes(7);
        assert_eq!((stateful(sized()), stateful(sized().stateful_reconnect(true))), (None, Some(7)));
        assert!(hub.manifest.compress && !built(Hub::new("/chat").compress(false)).manifest.compress);
        assert_eq!(stateful(sized().stateful_reconnect(true).transports([Transport::LongPolling])), None);
        assert!(guarded.close_on_token_expiry && !hub.manifest.close_on_token_expiry);
        let error = Hub::new("/chat").keep_alive_interval(Duration::ZERO).build().err().unwrap().to_string();
        assert_eq!(
            error,
            "hub or raw endpoint 'chat': keep_alive_interval must be at least 1 ms; for few pings choose a long \
             interval"
        );
        assert!(matches!(Hub::new("/chat").protocols([]).build(), Err(BuildError::NoProtocol(_))));
        assert!(matches!(Hub::new("/chat").transports([]).build(), Err(BuildError::NoTransport(_))));
        assert_eq!(built(Hub::new("/chat")).manifest.transports, Transport::ALL);
    }
}
