//! One client, and the results that it can be asked for.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use serde::de::DeserializeOwned;
use tokio::sync::futures::OwnedNotified;
use trunkline_protocol::hub::{HubProtocol, Outcome, Payload};
use trunkline_protocol::service::{ClientInvocation, MultiConnectionData, ServiceMessage};

use super::{Receivers, To};
use crate::connection::{Connection, Errand, Scope};
use crate::downward::{Answer, Downward, Hopeless, TooMany, frame};
use crate::encode::{self, Arguments};
use crate::error::{InvokeError, short_type_name};
use crate::metrics::Counted;

/// One client, wherever it is connected: it can be sent to, as all [`Receivers`], and asked for a result.
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
    /// The method that asks, if one does.
    scope: Option<Arc<Scope>>,
    timeout: Duration,
}

/// Where a client is that is to be asked.
enum Place {
    Here(Arc<Connection>),
    Elsewhere(ByteString),
    Gone(ByteString),
}

impl Client {
    pub(super) fn new(receivers: Receivers, scope: Option<Arc<Scope>>) -> Self {
        let timeout = receivers.down.limits.client_result_timeout;
        Self { receivers, scope, timeout }
    }

    /// Another time than [the hub's](crate::Hub::client_result_timeout) that the client may take for its result.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls `method` at the client, with a tuple of arguments, and waits for its result.
    ///
    /// The client may be held by any proxy and any app server. While a method waits here, further calls of its client
    /// may start, because the answer could stand behind them. Whoever stops waiting drops the future: a late answer is
    /// ignored.
    ///
    /// # Errors
    /// When the client isn't there or goes away, takes too long, answers with an error (its handler's, or that it has
    /// no handler) or with another type, and when the question can't be sent. Inside of `on_connected` the calling
    /// client can't answer, so there nobody may be asked.
    pub async fn invoke<T: DeserializeOwned>(&self, method: &str, arguments: impl Arguments) -> Result<T, InvokeError> {
        let metrics = &self.receivers.down.metrics;
        let _counted = Counted::new(&metrics.client_results_waiting);
        let result = self.ask(method, &arguments).await.and_then(|(protocol, outcome)| read(protocol, outcome));
        let counter = if result.is_ok() { &metrics.client_results_ok } else { &metrics.client_results_failed };
        counter.inc();
        result
    }

    async fn ask(&self, method: &str, arguments: &impl Arguments) -> Result<(HubProtocol, Outcome), InvokeError> {
        if self.scope.as_ref().is_some_and(|scope| is_being_greeted(scope)) {
            return Err(InvokeError::InsideOnConnected);
        }
        let down = &*self.receivers.down;
        let overfull = |Hopeless| InvokeError::InboxOverfull(down.limits.waiting_inbox_max_bytes);
        let waiting = match &self.scope {
            Some(scope) => Some(down.begin_wait(scope).map_err(overfull)?),
            None => None,
        };
        let (_wait, hopeless) = waiting.unzip();
        let asking = async {
            tokio::select! {
                biased;
                answer = self.question(down, method, arguments) => answer,
                hopeless = fired(hopeless) => Err(overfull(hopeless)),
            }
        };
        tokio::time::timeout(self.timeout, asking).await.map_err(|_| InvokeError::Timeout(self.timeout))?
    }

    async fn question(
        &self,
        down: &Downward,
        method: &str,
        arguments: &impl Arguments,
    ) -> Result<(HubProtocol, Outcome), InvokeError> {
        let (id, answer) = match self.place(down) {
            Place::Here(connection) => (connection.shared_id(), ask_here(down, &connection, method, arguments).await?),
            Place::Elsewhere(id) => {
                let answer = ask_everywhere(down, &id, method, arguments).await?;
                (id, answer)
            }
            Place::Gone(id) => (id, Answer::Disconnected),
        };
        match answer {
            Answer::Given(protocol, outcome) => Ok((protocol, outcome)),
            Answer::DoesNotExist => Err(InvokeError::DoesNotExist(id.to_string())),
            Answer::Disconnected => Err(InvokeError::Disconnected(id.to_string())),
            Answer::Refused(text) => Err(InvokeError::Refused(text.to_string())),
        }
    }

    fn place(&self, down: &Downward) -> Place {
        match &self.receivers.to {
            To::Caller(caller) if down.roster.holds(caller) => Place::Here(Arc::clone(caller)),
            To::Caller(caller) => Place::Gone(caller.shared_id()),
            To::Connections(ids) => {
                let id = ids.first().cloned().unwrap_or_default();
                down.roster.get(&id).map_or(Place::Elsewhere(id), Place::Here)
            }
            _ => Place::Gone(ByteString::new()),
        }
    }
}

/// Asks a client whose connection is here.
async fn ask_here(
    down: &Downward,
    connection: &Arc<Connection>,
    method: &str,
    arguments: &impl Arguments,
) -> Result<Answer, InvokeError> {
    let id = connection.shared_id();
    let mut expected = down.questions.expect(&id, down.limits.client_results_max).map_err(|e| too_many(down, e))?;
    // Looked at after the answer is expected: its end either fails the question or is seen here.
    if !down.roster.holds(connection) {
        return Ok(Answer::Disconnected);
    }
    let payloads = encode::invocation(method, arguments, &[connection.protocol()], Some(expected.id()))?;
    let message = MultiConnectionData { connection_ids: vec![id], payloads };
    let frame = frame(&ServiceMessage::MultiConnectionData(message))?;
    if !down.send(connection.node(), &frame).await {
        return Ok(Answer::Disconnected);
    }
    Ok(expected.received().await)
}

/// Asks a client that another app server holds, by way of every proxy.
async fn ask_everywhere(
    down: &Downward,
    connection_id: &ByteString,
    method: &str,
    arguments: &impl Arguments,
) -> Result<Answer, InvokeError> {
    let nodes = down.nodes();
    if nodes.is_empty() {
        return Ok(Answer::DoesNotExist);
    }
    let (instance, max) = (&down.instance, down.limits.client_results_max);
    let mut expected = down
        .questions
        .expect_from_afar(connection_id, instance, nodes.to_vec(), max)
        .map_err(|error| too_many(down, error))?;
    let question = ClientInvocation {
        invocation_id: expected.id().clone(),
        connection_id: connection_id.clone(),
        caller_server_id: (&**instance).into(),
        payloads: encode::invocation(method, arguments, &down.protocols, Some(expected.id()))?,
    };
    let frame = frame(&ServiceMessage::ClientInvocation(question))?;
    for node in nodes.iter() {
        if !down.send(node, &frame).await {
            down.questions.deny(expected.id(), node);
        }
    }
    Ok(expected.received().await)
}

fn too_many(down: &Downward, TooMany: TooMany) -> InvokeError {
    InvokeError::TooMany(down.limits.client_results_max)
}

/// The calling client is not connected yet: its messages are read only after `on_connected`.
fn is_being_greeted(scope: &Scope) -> bool {
    scope.errand() == Errand::Greeting && !scope.connection().inbox().is_connected()
}

async fn fired(hopeless: Option<OwnedNotified>) -> Hopeless {
    match hopeless {
        Some(hopeless) => hopeless.await,
        None => std::future::pending().await,
    }
    Hopeless
}

fn read<T: DeserializeOwned>(protocol: HubProtocol, outcome: Outcome) -> Result<T, InvokeError> {
    let unfit = |detail: String| InvokeError::Type { expected: short_type_name::<T>(), detail };
    let payload: Payload = match outcome {
        Outcome::Value(payload) => payload,
        // No result is as good as null.
        Outcome::Void => protocol.payload(&()).map_err(|error| unfit(error.to_string()))?,
        Outcome::Error(text) => return Err(InvokeError::Client(text.to_string())),
    };
    protocol.value(&payload).map_err(|error| unfit(error.to_string()))
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
