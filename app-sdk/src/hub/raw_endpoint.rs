//! Builder of a raw endpoint: a hub without methods, with a handler of connections.

use std::sync::Arc;
use std::time::Duration;

use trunkline_protocol::limits::RAW_MESSAGE_MAX_BYTES;
use trunkline_protocol::manifest::{EndpointKind, HubManifest};

use super::{BuiltHub, Hub};
use crate::brief_debug::brief_debug;
use crate::error::BuildError;
use crate::raw::{RawHandler, RawServe};

/// Raw endpoint: a path and an async function that runs once per client.
///
/// Proxies, transports, negotiation, users and claims work as for a [`Hub`](crate::Hub), with a separate pool of links,
/// but there are no methods and no groups. As in axum, the handler takes [`State`](axum::extract::State), and last, in
/// place of a `WebSocket`, [`RawConnection`](crate::RawConnection). It returns nothing, or a `Result` with
/// [`HubError`](crate::HubError); an error closes the connection as failed.
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
    /// Settings that hubs have too.
    hub: Hub,
    is_movable: bool,
    serve: Box<dyn FnOnce(S) -> RawServe + Send + Sync>,
}

impl<S: Clone + Send + Sync + 'static> RawEndpoint<S> {
    /// An endpoint at `path`, such as `/echo`, case-insensitive. Its name is the last segment of the path.
    pub fn new<H: RawHandler<S, M>, M: 'static>(path: impl Into<String>, handler: H) -> Self {
        Self {
            // Only bytes limit the messages that wait for the handler.
            hub: Hub::new(path).message_max_bytes(RAW_MESSAGE_MAX_BYTES).upload_max_items(usize::MAX),
            is_movable: false,
            serve: Box::new(move |state: S| {
                Arc::new(move |connection| handler.clone().call(state.clone(), connection))
            }),
        }
    }

    /// Sets the name for links, logs and metrics; by default the last segment of the path.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.hub = self.hub.name(name);
        self
    }

    /// Provides the state of the raw endpoint.
    pub fn with_state<S2>(self, state: S) -> RawEndpoint<S2> {
        let serve = (self.serve)(state);
        RawEndpoint { hub: self.hub, is_movable: self.is_movable, serve: Box::new(move |_| serve) }
    }

    /// Sets the maximum size of a client message; 64 KiB by default. A client that sends a larger message is closed,
    /// over WebSockets with code 1009. Proxies have an upper limit, `--message-max-bytes`.
    pub fn message_max_bytes(mut self, bytes: usize) -> Self {
        self.hub = self.hub.message_max_bytes(bytes);
        self
    }

    /// Sets the WebSocket sub-protocols (`Sec-WebSocket-Protocol`) of the endpoint; none by default. The first
    /// protocol in the client's list that the endpoint supports is selected. Case-sensitive.
    pub fn sub_protocols(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hub = self.hub.sub_protocols(names);
        self
    }

    /// Sets the maximum size of a client's queue of received messages, before its proxy is asked to pause the client;
    /// 64 KiB by default.
    pub fn inbox_max_bytes(mut self, bytes: usize) -> Self {
        self.hub = self.hub.inbox_max_bytes(bytes);
        self
    }

    /// Sets the silence after which the transport pings a client; 15 s by default.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.hub = self.hub.keep_alive_interval(interval);
        self
    }

    /// Sets the silence after which a client is closed despite pings; 30 s by default, and at least twice the
    /// keep-alive interval.
    pub fn client_timeout(mut self, timeout: Duration) -> Self {
        self.hub = self.hub.client_timeout(timeout);
        self
    }

    /// Lets clients continue on another app server when this one stops; by default they are closed. No client message
    /// is lost, duplicated or reordered, and clients do not notice.
    ///
    /// When the app server stops, [`recv`](crate::RawConnection::recv) returns everything that the client has sent,
    /// then `None`, and [`is_leaving`](crate::RawConnection::is_leaving) returns `true`. After the handler has
    /// returned, another app server runs its own handler for the same connection:
    /// [`rehomed`](crate::RawConnection::rehomed) returns the value given to
    /// [`hand_over`](crate::RawConnection::hand_over). A client is closed if its handler fails or does not return
    /// within [`Server::shutdown_timeout`](crate::Server::shutdown_timeout), or if its app server crashes. If it
    /// disconnects before the next app server has it, the handler there still runs, without items, and its first `recv`
    /// returns `None`. All app servers of the endpoint must enable this setting.
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
    pub(crate) fn build(self) -> Result<BuiltHub, BuildError> {
        let hub = self.hub.build()?;
        let (kind, is_movable) = (EndpointKind::Raw, self.is_movable);
        let manifest = HubManifest { kind, is_movable, protocols: Vec::new(), ..hub.manifest };
        Ok(BuiltHub { manifest, raw: Some((self.serve)(())), ..hub })
    }
}

brief_debug!(RawEndpoint<S>, |it| { path: it.hub.path });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::RawConnection;

    async fn serve(_: RawConnection) {}

    #[test]
    fn settings_reach_the_manifest() {
        let built = |endpoint: RawEndpoint| endpoint.build().unwrap().manifest;
        assert_eq!(built(RawEndpoint::new("/line", serve)), HubManifest::raw("line", "/line"));
        let endpoint =
            RawEndpoint::new("/line", serve).name("wire").movable(true).message_max_bytes(1).sub_protocols(["a"]);
        let endpoint = endpoint.keep_alive_interval(Duration::from_secs(1)).client_timeout(Duration::from_secs(2));
        let expected = HubManifest {
            is_movable: true,
            message_max_bytes: 1,
            sub_protocols: vec!["a".into()],
            keep_alive_interval_ms: 1000,
            client_timeout_ms: 2000,
            ..HubManifest::raw("wire", "/line")
        };
        assert_eq!(built(endpoint), expected);
    }
}
