//! Context of a call: the client that called, and the hub around it.

pub(crate) mod items;
pub(crate) mod request;
pub(crate) mod upload_stream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubProtocol};
use trunkline_protocol::manifest::Transport;

use crate::clients::{CallerClients, Groups, Users};
use crate::connection::{CallKind, CallScope, Connection, ConnectionClose};
use crate::error::GroupError;
use crate::hub_core::HubCore;
use crate::naming::{Codec, Naming};

use items::Items;
use request::{Claims, Query};

/// The connection that a method was called on, and the hub around it. Cheap to clone, and good beyond the call.
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
    scope: Arc<CallScope>,
    core: Arc<HubCore>,
}

/// Signal that work is no longer wanted.
///
/// As a parameter of a method: the client has cancelled this call, or its connection has ended. The method goes on
/// until it returns, and is answered as ever. From [`Context::cancellation`]: the connection has ended.
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

    /// Closes the connection: the client is told so and does not come back by itself. What it has sent and what
    /// has not been called yet is dropped; running methods go on, without a result. Does nothing once it has ended.
    pub fn abort(&self) {
        self.close(Close::default());
    }

    /// Closes the connection as [`abort`](Self::abort) does, with a reason that the client reads in its close message.
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
        if self.core.close(self.connection(), message, ConnectionClose::new(Cause::AppClosed)) {
            self.scope.start_worker();
        }
    }

    /// Adds the caller to a group; done when its proxy has acknowledged it.
    ///
    /// # Errors
    /// See [`Groups::add`].
    pub async fn join(&self, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.groups().add(self.connection_id(), group).await
    }

    /// Removes the caller from a group; done when its proxy has acknowledged it.
    ///
    /// # Errors
    /// See [`Groups::remove`].
    pub async fn leave(&self, group: impl AsRef<str>) -> Result<(), GroupError> {
        self.groups().remove(self.connection_id(), group).await
    }

    /// The clients of this hub, to send to.
    #[must_use]
    pub fn clients(&self) -> CallerClients {
        CallerClients::new(&self.core, &self.scope)
    }

    /// The groups of this hub, to add connections to.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups::new(&self.core)
    }

    /// The users of this hub, to ask who is online.
    #[must_use]
    pub fn users(&self) -> Users {
        Users::new(&self.core)
    }

    /// Values that the app keeps with the connection, by type; dropped when it closes.
    #[must_use]
    pub fn items(&self) -> Items {
        Items::new(self.scope.connection())
    }

    /// Public id of the connection: the same at the client and at the proxy.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        self.connection().id()
    }

    /// User id of the client; `None` if it is not authenticated.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.connection().request().user_id()
    }

    /// The claims of the user; of the newest log-in, if the client has
    /// [renewed](crate::Hub::authentication_refresh) it. Read from the connect request at each call, as are the three
    /// that follow, because keeping them unpacked would make idle connections heavy.
    #[must_use]
    pub fn claims(&self) -> Claims {
        Claims::of_pairs(self.connection().claims())
    }

    /// The headers of the connect request.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        request::headers(self.connection().request())
    }

    /// The query of the connect request.
    #[must_use]
    pub fn query(&self) -> Query {
        Query::new(&self.connection().request().query())
    }

    /// The client's address, as its proxy saw it.
    #[must_use]
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.connection().request().remote_addr()
    }

    /// Transport that the client uses.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.connection().request().transport()
    }

    /// The hub protocol that the client speaks.
    #[must_use]
    pub fn protocol(&self) -> HubProtocol {
        self.connection().protocol()
    }

    /// The name of the hub.
    #[must_use]
    pub fn hub(&self) -> &str {
        self.core.name()
    }

    /// Random id of this app server process.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.core.instance
    }

    /// Cancellation that fires when the connection closes, for whatever reason.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        Cancellation(self.connection().cancellation().clone())
    }

    /// How arguments and result of this call are encoded. What a hook returns is for the next app server, not for the
    /// client, and has serde's own names.
    pub(crate) fn codec(&self) -> Codec {
        match self.scope.state().kind() {
            CallKind::Method(_) => self.core.codec(self.protocol()),
            CallKind::ConnectHook | CallKind::DisconnectHook => Codec::new(self.protocol(), Naming::Serde),
        }
    }

    pub(crate) fn call_cancellation(&self) -> Cancellation {
        Cancellation(self.scope.cancellation().clone())
    }

    pub(crate) fn scope(&self) -> &Arc<CallScope> {
        &self.scope
    }

    pub(crate) fn core(&self) -> &Arc<HubCore> {
        &self.core
    }

    fn connection(&self) -> &Arc<Connection> {
        self.scope.connection()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("hub", &self.hub())
            .field("connection_id", &self.connection_id())
            .field("user_id", &self.user_id())
            .finish_non_exhaustive()
    }
}

impl Cancellation {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self(token)
    }

    /// Whether the work is no longer wanted.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the work is no longer wanted.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }
}
