//! Context of a call: the calling client, its items and its hub.

pub(crate) mod request;
pub(crate) mod upload_stream;

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubProtocol};
use trunkline_protocol::manifest::Transport;

use crate::brief_debug::brief_debug;
use crate::clients::{CallerClients, Groups, Users};
use crate::connection::{CallKind, CallScope, Connection, ConnectionClose};
use crate::error::GroupError;
use crate::hub_core::HubCore;
use crate::naming::{Codec, Naming};

use request::{Claims, Query};

/// The connection that called a method, and its hub. Cheap to clone, and usable after the call.
///
/// ```
/// use trunkline::{Context, HubError};
///
/// async fn join_room(ctx: Context, room: String) -> Result<(), HubError> {
///     ctx.join(&room).await?;
///     let name = ctx.user_id().unwrap_or("somebody");
///     ctx.clients().others_in_group(&room).send("Joined", (name,)).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Context {
    pub(crate) scope: Arc<CallScope>,
    pub(crate) core: Arc<HubCore>,
}

/// Cancellation signal.
///
/// As a method parameter: fires when the client cancels this call or its connection closes. The method keeps running,
/// and its result is still sent. From [`Context::cancellation`]: fires when the connection closes.
///
/// ```
/// # use trunkline::{Cancellation, Context, HubError};
/// async fn watch(ctx: Context, cancelled: Cancellation) -> Result<(), HubError> {
///     while !cancelled.is_cancelled() {
///         ctx.clients().caller().send("Tick", ()).await?;
///         tokio::select! {
///             () = cancelled.cancelled() => {}
///             () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
///         }
///     }
///     Ok(())
/// }
/// # let _ = trunkline::Hub::<()>::new("/clock").method("Watch", watch);
/// ```
#[derive(Debug, Clone)]
pub struct Cancellation(CancellationToken);

impl Context {
    pub(crate) fn new(scope: Arc<CallScope>, core: Arc<HubCore>) -> Self {
        Self { scope, core }
    }

    /// Closes the connection. The client receives a close message and does not reconnect automatically. Messages that
    /// have not been dispatched are dropped; running methods continue without a result. No effect on a closed
    /// connection.
    pub fn abort(&self) {
        self.close(Close::default());
    }

    /// Closes the connection like [`abort`](Self::abort), with a reason in the close message.
    ///
    /// ```
    /// # use trunkline::{Context, Hub};
    /// async fn leave(ctx: Context) {
    ///     ctx.abort_with("see you tomorrow");
    /// }
    /// # let _ = Hub::<()>::new("/chat").method("Leave", leave);
    /// ```
    pub fn abort_with(&self, reason: impl Into<String>) {
        self.close(Close { error: Some(reason.into().into()), allow_reconnect: false });
    }

    fn close(&self, message: Close) {
        if self.core.close_connection(self.connection(), message, ConnectionClose::new(Cause::AppClosed)) {
            self.scope.start_worker();
        }
    }

    /// Adds the caller to a group. Returns once its proxy has acknowledged the change.
    ///
    /// # Errors
    /// See [`Groups::add`].
    pub async fn join(&self, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.groups().add(self.connection_id(), group).await
    }

    /// Removes the caller from a group. Returns once its proxy has acknowledged the change.
    ///
    /// # Errors
    /// See [`Groups::remove`].
    pub async fn leave(&self, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.groups().remove(self.connection_id(), group).await
    }

    /// Clients of this hub, to send to.
    #[must_use]
    pub fn clients(&self) -> CallerClients {
        CallerClients::new(&self.core, &self.scope)
    }

    /// Groups of this hub, to change membership.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups::new(&self.core)
    }

    /// Users of this hub, to query who is online.
    #[must_use]
    pub fn users(&self) -> Users {
        Users::new(&self.core)
    }

    /// Values that the app stores with the connection, one per type; dropped when the connection closes.
    #[must_use]
    pub fn items(&self) -> Items {
        Items::new(&self.scope.connection)
    }

    /// Public ID of the connection, the same for client and proxy.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        self.connection().id()
    }

    /// User ID; `None` if the client is not authenticated.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.connection().request.user_id()
    }

    /// Claims of the user, from the latest log-in if the client has [refreshed](crate::Hub::authentication_refresh) it.
    /// Claims, headers, query and address are parsed on each call, because storing them parsed would make idle
    /// connections expensive.
    #[must_use]
    pub fn claims(&self) -> Claims {
        Claims::of_pairs(self.connection().claims())
    }

    /// Headers of the connect request.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        request::headers(&self.connection().request)
    }

    /// Query of the connect request.
    #[must_use]
    pub fn query(&self) -> Query {
        Query::new(&self.connection().request.query())
    }

    /// Client address, as seen by its proxy.
    #[must_use]
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.connection().request.remote_addr()
    }

    /// Transport of the client.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.connection().request.transport()
    }

    /// Hub protocol of the client.
    #[must_use]
    pub fn protocol(&self) -> HubProtocol {
        self.connection().protocol
    }

    /// Name of the hub.
    #[must_use]
    pub fn hub(&self) -> &str {
        self.core.name()
    }

    /// Random ID of this app server process.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.core.instance
    }

    /// Cancellation that fires when the connection closes for any reason.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        Cancellation(self.connection().cancellation().clone())
    }

    /// Encoding of arguments and results. Results of hooks go to the next app server, with serde's own names.
    pub(crate) fn codec(&self) -> Codec {
        match self.scope.state.kind {
            CallKind::Method(_) => self.core.codec(self.protocol()),
            CallKind::ConnectHook | CallKind::DisconnectHook => Codec::new(self.protocol(), Naming::Serde),
        }
    }

    pub(crate) fn call_cancellation(&self) -> Cancellation {
        Cancellation(self.scope.cancellation().clone())
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.scope.connection
    }
}

brief_debug!(Context, |it| { hub: it.hub(), connection_id: it.connection_id(), user_id: it.user_id() });

impl Cancellation {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self(token)
    }

    /// Whether the signal has fired.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the signal.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }
}

/// Values of a connection: one per type, dropped when the connection closes.
///
/// Without items, they use no memory. Values are returned as clones; for a value that several calls change, insert an
/// [`Arc`] of a lock.
///
/// ```
/// use trunkline::{Context, HubError};
///
/// #[derive(Clone)]
/// struct Nickname(String);
///
/// async fn rename(ctx: Context, name: String) {
///     ctx.items().insert(Nickname(name));
/// }
///
/// async fn say(ctx: Context, text: String) -> Result<(), HubError> {
///     let Nickname(name) = ctx.items().get().ok_or_else(|| HubError::new("who are you?"))?;
///     ctx.clients().all().send("Said", (name, text)).await?;
///     Ok(())
/// }
/// # let _ = trunkline::Hub::<()>::new("/chat").method("Rename", rename).method("Say", say);
/// ```
#[derive(Clone)]
pub struct Items {
    connection: Arc<Connection>,
}

impl Items {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self { connection: Arc::clone(connection) }
    }

    /// Inserts a value and returns the previous value of its type.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) -> Option<T> {
        self.connection.items().insert(value)
    }

    /// Returns the value of this type.
    #[must_use]
    pub fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.connection.items().get().cloned()
    }

    /// Returns the value of this type. If it is missing, inserts the result of `make`.
    ///
    /// Concurrent calls get the same value. `make` runs without a lock and may use the items itself; of two concurrent
    /// results, one is dropped.
    ///
    /// ```
    /// # use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// # use trunkline::Context;
    /// #[derive(Clone, Default)]
    /// struct Calls(Arc<AtomicU32>);
    ///
    /// async fn count(ctx: Context) -> u32 {
    ///     ctx.items().get_or_insert_with(Calls::default).0.fetch_add(1, Ordering::Relaxed)
    /// }
    /// # let _ = trunkline::Hub::<()>::new("/counter").method("Count", count);
    /// ```
    pub fn get_or_insert_with<T: Clone + Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> T {
        if let Some(present) = self.get() {
            return present;
        }
        let made = make();
        let mut items = self.connection.items();
        match items.get().cloned() {
            Some(present) => {
                // Unlock before dropping `made`, which runs app code.
                drop(items);
                present
            }
            None => {
                items.insert(made.clone());
                made
            }
        }
    }

    /// Removes and returns the value of this type.
    pub fn remove<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.connection.items().remove()
    }
}

brief_debug!(Items, |it| "Items of {}", it.connection.id());
