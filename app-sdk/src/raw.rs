//! Raw endpoints: clients and the app exchange texts and bytes, without a hub protocol.
//!
//! ```text
//!  link reader ──open──► a task that runs the handler ──┬─ recv ◄── inbox ◄── data, close
//!                                                       └─ send ──► send link of the node
//! ```
//!
//! Each connection has one run of the handler, from its beginning on; its end closes the connection, or hands it over
//! to another app server, where another run goes on.

mod raw_connection;
mod raw_core;
mod raw_dispatcher;
mod raw_handler;
mod raw_inbox;
mod raw_message;
mod raw_reassignment;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use trunkline_protocol::manifest::HubManifest;

use crate::connection::Limits;
use crate::error::BuildError;
use crate::hub::{check_sub_protocols, checked_name, millis};

pub use raw_connection::{RawConnection, RawHandle, RawSender};
pub(crate) use raw_dispatcher::{BuiltRaw, RawDispatcher, RawServe};
pub use raw_handler::RawHandler;
pub use raw_message::RawMessage;

/// Raw endpoint: a path, and an async function that runs once for each client.
///
/// There are proxies, transports, negotiation, users and claims as for a [`Hub`](crate::Hub), and a pool of links of
/// its own; but no hub protocol, so no methods and no groups. The handler takes what axum's handlers take:
/// [`State`](axum::extract::State), and [`RawConnection`] last, where axum has its `WebSocket`. It returns nothing, or
/// a `Result` with [`HubError`](crate::HubError), whose error closes the connection as failed.
///
/// ```
/// use axum::extract::State;
/// use trunkline::{HubError, RawConnection, RawEndpoint, RawMessage, Server};
///
/// #[derive(Clone)]
/// struct Greeting(&'static str);
///
/// async fn greet(State(Greeting(greeting)): State<Greeting>, mut client: RawConnection) -> Result<(), HubError> {
///     let name = client.user_id().unwrap_or("somebody").to_owned();
///     client.send(format!("{greeting}, {name}")).await?;
///     while let Some(message) = client.recv().await {
///         match message {
///             RawMessage::Text(text) => client.send(text.to_uppercase()).await?,
///             RawMessage::Binary(bytes) => client.send(bytes).await?,
///         }
///     }
///     Ok(()) // the client has left
/// }
///
/// let endpoint = RawEndpoint::new("/greet", greet).message_max_bytes(1024 * 1024).with_state(Greeting("hello"));
/// let server = Server::new().raw_endpoint(endpoint);
/// ```
#[must_use = "a raw endpoint does nothing until it is added to a server"]
pub struct RawEndpoint<S = ()> {
    path: String,
    name: Option<String>,
    message_max_bytes: usize,
    inbox_max_bytes: usize,
    sub_protocols: Vec<String>,
    keep_alive_interval: Duration,
    client_timeout: Duration,
    is_movable: bool,
    serve: Box<dyn FnOnce(S) -> Arc<RawServe> + Send + Sync>,
}

impl<S: Clone + Send + Sync + 'static> RawEndpoint<S> {
    /// An endpoint that clients find at `path`, such as `/echo`; case does not count. It is named after the path's last
    /// segment.
    pub fn new<H: RawHandler<S, M>, M: 'static>(path: impl Into<String>, handler: H) -> Self {
        let manifest = HubManifest::raw("", "");
        Self {
            path: path.into(),
            name: None,
            message_max_bytes: manifest.message_max_bytes,
            inbox_max_bytes: Limits::default().inbox_max_bytes,
            sub_protocols: manifest.sub_protocols,
            keep_alive_interval: Duration::from_millis(manifest.keep_alive_interval_ms),
            client_timeout: Duration::from_millis(manifest.client_timeout_ms),
            is_movable: manifest.is_movable,
            serve: Box::new(move |state: S| {
                Arc::new(move |connection| handler.clone().call(state.clone(), connection))
            }),
        }
    }

    /// Sets the name for links, logs and metrics; by default it is the path's last segment.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives the raw endpoint its state.
    pub fn with_state<S2>(self, state: S) -> RawEndpoint<S2> {
        let serve = (self.serve)(state);
        RawEndpoint {
            path: self.path,
            name: self.name,
            message_max_bytes: self.message_max_bytes,
            inbox_max_bytes: self.inbox_max_bytes,
            sub_protocols: self.sub_protocols,
            keep_alive_interval: self.keep_alive_interval,
            client_timeout: self.client_timeout,
            is_movable: self.is_movable,
            serve: Box::new(move |_| serve),
        }
    }

    /// Sets the largest message of a client; 64 KiB by default. A client that sends more is closed, over WebSockets
    /// with 1009. Proxies have an upper bound to it, `--message-max-bytes`.
    pub fn message_max_bytes(mut self, bytes: usize) -> Self {
        self.message_max_bytes = bytes;
        self
    }

    /// Sets the WebSocket sub-protocols (`Sec-WebSocket-Protocol`) of the endpoint; none by default. The first one that
    /// a client asks for and that is among them is chosen. Case counts.
    pub fn sub_protocols(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.sub_protocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how much may wait for one client's handler before its proxy is asked to pause it; 64 KiB by default.
    pub fn inbox_max_bytes(mut self, bytes: usize) -> Self {
        self.inbox_max_bytes = bytes;
        self
    }

    /// Sets the silence after which a client is pinged by its transport; 15 s by default.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = interval;
        self
    }

    /// Sets the silence, pings or not, after which a client is closed; 30 s by default, and twice the keep-alive
    /// interval at least.
    pub fn client_timeout(mut self, timeout: Duration) -> Self {
        self.client_timeout = timeout;
        self
    }

    /// Lets clients go on at another app server when this one stops; by default they are closed then. Nothing that they
    /// send is lost, doubled or reordered, and they notice nothing.
    ///
    /// When the app server stops, [`recv`](RawConnection::recv) gives the handler all that its client has sent, and
    /// then `None`, with [`is_leaving`](RawConnection::is_leaving). When the handler returns, another app server runs
    /// its own for the same connection: [`rehomed`](RawConnection::rehomed) has what this one has given to
    /// [`hand_over`](RawConnection::hand_over). A client whose handler does not return within
    /// [`Server::shutdown_timeout`](crate::Server::shutdown_timeout), or fails, is closed, and so are the clients of an
    /// app server that crashes. Of a client that leaves before the next app server has it, the handler there is told
    /// all the same: it runs without items, and its first `recv` is `None`. All app servers of the endpoint have to
    /// allow it.
    ///
    /// ```
    /// use trunkline::{HubError, RawConnection, RawEndpoint};
    ///
    /// async fn count(mut client: RawConnection) -> Result<(), HubError> {
    ///     let mut count: u64 = match client.rehomed() {
    ///         Some(moved) => moved.items()?.unwrap_or_default(),
    ///         None => 0,
    ///     };
    ///     while client.recv().await.is_some() {
    ///         count += 1;
    ///         client.send(count.to_string()).await?;
    ///     }
    ///     if client.is_leaving() {
    ///         client.hand_over(&count)?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let endpoint: RawEndpoint = RawEndpoint::new("/count", count).movable(true);
    /// ```
    pub fn movable(mut self, is_movable: bool) -> Self {
        self.is_movable = is_movable;
        self
    }
}

impl RawEndpoint<()> {
    /// Checks the settings, and builds the endpoint.
    pub(crate) fn build(self) -> Result<BuiltRaw, BuildError> {
        let name = checked_name(&self.path, self.name.as_deref())?;
        if millis(self.keep_alive_interval) == 0 {
            return Err(BuildError::KeepAliveInterval(name));
        }
        check_sub_protocols(&name, &self.sub_protocols)?;
        let manifest = HubManifest {
            sub_protocols: self.sub_protocols,
            message_max_bytes: self.message_max_bytes,
            keep_alive_interval_ms: millis(self.keep_alive_interval),
            client_timeout_ms: millis(self.client_timeout),
            is_movable: self.is_movable,
            ..HubManifest::raw(&name, &self.path)
        };
        let limits = Limits {
            message_max_bytes: self.message_max_bytes,
            inbox_max_bytes: self.inbox_max_bytes,
            ..Limits::default()
        };
        Ok(BuiltRaw { manifest, limits, serve: (self.serve)(()) })
    }
}

impl<S> fmt::Debug for RawEndpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawEndpoint").field("path", &self.path).finish_non_exhaustive()
    }
}
