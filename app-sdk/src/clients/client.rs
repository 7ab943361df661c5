//! A single client: sends and client results.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use serde::de::DeserializeOwned;
use tokio::sync::futures::OwnedNotified;
use trunkline_protocol::hub::{HubProtocol, Outcome, Payload};
use trunkline_protocol::service::{Check, ClientInvocation, ServiceMessage};

use super::question::{all_nodes, is_anywhere, query_limited};
use super::receivers::{Receivers, SendTarget};
use crate::connection::{CallScope, Connection};
use crate::encode::{self, Arguments};
use crate::error::{AskError, InvokeError, short_type_name};
use crate::hub_core::{ClientResult, ExpectedResult, HubCore, InboxOverfull, ResultWait, TooManyRequests};
use crate::metrics::Counted;
use crate::naming::Codec;
use crate::outbound::{ManyFrame, checked_frame};
use crate::sync::lock;

/// One client, wherever it is connected. Accepts sends like all [`Receivers`], and can be invoked for a result.
///
/// ```
/// use trunkline::{Context, HubError};
///
/// async fn roll_for(ctx: Context, player: String) -> Result<u32, HubError> {
///     let roll: u32 = ctx.clients().client(&player).invoke("RollDice", (6,)).await?;
///     ctx.clients().all().send("Rolled", (player, roll)).await?;
///     Ok(roll)
/// }
/// ```
#[derive(Clone)]
#[must_use = "a client gets nothing until `send` or `invoke` is called"]
pub struct Client {
    receivers: Receivers,
    scope: Option<Arc<CallScope>>,
    timeout: Duration,
}

/// Result type of a client method: any deserializable type, `()` for no result.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the result of a client",
    label = "can't be deserialized from what the client answers",
    note = "name the type of the result: `let answer: bool = client.invoke(…).await?`, or `invoke::<bool>(…)`; `()` if \
            there is none",
    note = "derive `serde::Deserialize` for your own type; it must be owned"
)]
pub trait ClientAnswer: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> ClientAnswer for T {}

enum ClientLocation {
    Local(Arc<Connection>),
    Remote(ByteString),
    Disconnected(ByteString),
    /// Reassigned to another app server, because this one is stopping.
    Leaving(ByteString),
}

impl Client {
    pub(super) fn new(receivers: Receivers, scope: Option<Arc<CallScope>>) -> Self {
        let timeout = receivers.core.limits.client_result_timeout;
        Self { receivers, scope, timeout }
    }

    /// Overrides [the hub's timeout](crate::Hub::client_result_timeout) for results.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls `method` on the client with a tuple of arguments, and waits for its result.
    ///
    /// The client may be connected to any proxy and assigned to any app server. While a method waits here, further
    /// calls of its own client may start, because the result could be queued behind them. Dropping the future cancels
    /// the wait; a late result is ignored. The result arrives even if the client is reassigned to another app server.
    ///
    /// # Errors
    /// If the client is not connected or disconnects, does not answer in time, returns an error (from its handler, or
    /// because it has none) or a value of a different type, or if the request cannot be sent. Also inside
    /// `on_connected`: the calling client cannot answer there, so no client can be invoked.
    pub async fn invoke<T: ClientAnswer>(&self, method: &str, arguments: impl Arguments) -> Result<T, InvokeError> {
        let metrics = &self.receivers.core.outbound.metrics;
        let _counted = Counted::new(&metrics.client_results_waiting);
        let result = self.request(method, &arguments).await;
        let result = result.and_then(|(protocol, outcome)| read_result(self.receivers.core.codec(protocol), outcome));
        let counter = if result.is_ok() { &metrics.client_results_ok } else { &metrics.client_results_failed };
        counter.inc();
        result
    }

    /// Whether the client is connected, at any proxy.
    ///
    /// # Errors
    /// If no proxy has the connection, and at least one did not reply within 10 s.
    pub async fn exists(&self) -> Result<bool, AskError> {
        let core = &*self.receivers.core;
        let subject = match self.location(core) {
            ClientLocation::Local(_) => return Ok(true),
            ClientLocation::Disconnected(_) => return Ok(false),
            ClientLocation::Remote(id) | ClientLocation::Leaving(id) => id,
        };
        let message =
            |ack_id| ServiceMessage::CheckConnectionExistenceWithAck(Check { subject: subject.clone(), ack_id });
        is_anywhere(query_limited(core, &all_nodes(core)?, message).await?)
    }

    async fn request(&self, method: &str, arguments: &impl Arguments) -> Result<(HubProtocol, Outcome), InvokeError> {
        if self.scope.as_ref().is_some_and(|scope| scope.is_connecting()) {
            return Err(InvokeError::InsideOnConnected);
        }
        let core = &*self.receivers.core;
        let overfull = |InboxOverfull| InvokeError::InboxOverfull(core.limits.waiting_inbox_max_bytes);
        let waiting = match &self.scope {
            Some(scope) => Some(ResultWait::begin_wait(core, scope).map_err(overfull)?),
            None => None,
        };
        let (_wait, notified) = waiting.unzip();
        let requesting = async {
            tokio::select! {
                biased;
                result = self.request_and_wait(core, method, arguments) => result,
                reason = inbox_overfull(notified) => Err(overfull(reason)),
            }
        };
        tokio::time::timeout(self.timeout, requesting).await.map_err(|_| InvokeError::Timeout(self.timeout))?
    }

    async fn request_and_wait(
        &self,
        core: &HubCore,
        method: &str,
        arguments: &impl Arguments,
    ) -> Result<(HubProtocol, Outcome), InvokeError> {
        let (id, result) = match self.location(core) {
            ClientLocation::Local(connection) => {
                (connection.shared_id(), request_local(core, &connection, method, arguments).await?)
            }
            ClientLocation::Remote(id) => {
                let result = request_remote(core, &id, method, arguments).await?;
                (id, result)
            }
            ClientLocation::Disconnected(id) => (id, ClientResult::Disconnected),
            ClientLocation::Leaving(id) => (id, ClientResult::Leaving),
        };
        match result {
            ClientResult::Completed(protocol, outcome) => Ok((protocol, outcome)),
            ClientResult::DoesNotExist => Err(InvokeError::DoesNotExist(id.to_string())),
            ClientResult::Disconnected => Err(InvokeError::Disconnected(id.to_string())),
            ClientResult::Leaving => Err(InvokeError::Leaving),
            ClientResult::Refused(text) => Err(InvokeError::Refused(text.to_string())),
        }
    }

    fn location(&self, core: &HubCore) -> ClientLocation {
        match &self.receivers.to {
            SendTarget::Caller(caller) if core.connections.contains(caller) => {
                ClientLocation::Local(Arc::clone(caller))
            }
            SendTarget::Caller(caller) if caller.inbox().reassignment.is_elsewhere() => {
                ClientLocation::Leaving(caller.shared_id())
            }
            SendTarget::Caller(caller) => ClientLocation::Disconnected(caller.shared_id()),
            SendTarget::Connections(ids) => {
                let id = ids.first().cloned().unwrap_or_default();
                core.connections.get(&id).map_or(ClientLocation::Remote(id), ClientLocation::Local)
            }
            _ => ClientLocation::Disconnected(ByteString::new()),
        }
    }
}

async fn request_local(
    core: &HubCore,
    connection: &Arc<Connection>,
    method: &str,
    arguments: &impl Arguments,
) -> Result<ClientResult, InvokeError> {
    let id = connection.shared_id();
    let registered = ExpectedResult::register(core, &id, Vec::new());
    let mut expected = registered.map_err(|error| too_many(core, error))?;
    let payloads = encode::invocation(method, arguments, core.naming, &[connection.protocol], Some(&expected.id))?;
    // Checked after registering the request: a concurrent close either fails the request or is visible here.
    if !core.connections.contains(connection) || core.to(connection).call(payloads).await?.is_none() {
        let is_elsewhere = connection.inbox().reassignment.is_elsewhere();
        return Ok(if is_elsewhere { ClientResult::Leaving } else { ClientResult::Disconnected });
    }
    Ok(expected.received().await)
}

/// Requests a result from a client of another app server, through all proxies.
async fn request_remote(
    core: &HubCore,
    connection_id: &ByteString,
    method: &str,
    arguments: &impl Arguments,
) -> Result<ClientResult, InvokeError> {
    let send = core.outbound.moves.begin_send();
    let nodes = core.outbound.nodes();
    if nodes.is_empty() {
        return Ok(ClientResult::DoesNotExist);
    }
    let expected = ExpectedResult::register(core, connection_id, nodes.to_vec());
    let mut expected = expected.map_err(|error| too_many(core, error))?;
    let request = ClientInvocation {
        invocation_id: expected.id.clone(),
        connection_id: connection_id.clone(),
        caller_server_id: (&*core.instance).into(),
        payloads: encode::invocation(method, arguments, core.naming, &core.protocols, Some(&expected.id))?,
    };
    let frame = ManyFrame::of_send(&send, checked_frame(&ServiceMessage::ClientInvocation(request))?);
    for node in nodes.iter() {
        if !core.outbound.send(node, frame.for_node(node)).await {
            lock(&core.client_results).deny(&expected.id, node);
        }
    }
    drop(send);
    Ok(expected.received().await)
}

fn too_many(core: &HubCore, TooManyRequests: TooManyRequests) -> InvokeError {
    InvokeError::TooMany(core.limits.client_results_max)
}

async fn inbox_overfull(notified: Option<OwnedNotified>) -> InboxOverfull {
    match notified {
        Some(notified) => notified.await,
        None => std::future::pending().await,
    }
    InboxOverfull
}

fn read_result<T: DeserializeOwned>(codec: Codec, outcome: Outcome) -> Result<T, InvokeError> {
    let unfit = |detail: String| InvokeError::Type { expected: short_type_name::<T>(), detail };
    let payload: Payload = match outcome {
        Outcome::Value(payload) => payload,
        // A missing result is treated as null.
        Outcome::Void => codec.payload(&()).map_err(|error| unfit(error.to_string()))?,
        Outcome::Error(text) => return Err(InvokeError::Client(text.to_string())),
    };
    codec.value(&payload).map_err(|error| unfit(error.to_string()))
}

impl Deref for Client {
    type Target = Receivers;

    fn deref(&self) -> &Receivers {
        &self.receivers
    }
}

impl From<Client> for Receivers {
    fn from(client: Client) -> Self {
        client.receivers
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.receivers.fmt(f)
    }
}
