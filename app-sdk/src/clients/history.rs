//! Records of groups and users: appended sends, and the end of a record.

use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::service::{RecordAct, RecordRefusal, RecordReply, RecordRequest, RecordedSet, ServiceMessage};

use super::question::{NoReply, query_all};
use crate::brief_debug::brief_debug;
use crate::error::{HistoryError, SendError};
use crate::hub_core::{HubCore, WAITING_MAX};
use crate::node::Node;

/// Records of a hub's groups and users, which [`Hub::history`](crate::Hub::history) turns on: ends and deletes them.
///
/// An answer that ends, such as the text of an AI model, is a group of its own:
///
/// ```
/// use trunkline::{Clients, Hub, SendError};
///
/// let hub: Hub = Hub::new("/chat").history("answer-*", 10_000, std::time::Duration::from_secs(3600));
///
/// async fn answer(clients: Clients, group: &str, parts: Vec<String>) -> Result<(), SendError> {
///     for part in parts {
///         clients.group(group).send("Part", (part,)).await?; // recorded, and delivered to members and followers
///     }
///     clients.history().finish(group).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct History {
    core: Arc<HubCore>,
}

impl History {
    pub(super) fn new(core: &Arc<HubCore>) -> Self {
        Self { core: Arc::clone(core) }
    }

    /// Ends the record of a group, which stays readable: followers receive the rest, then the end of their stream.
    ///
    /// # Errors
    /// If the group has no record, or no node can end it.
    pub async fn finish(&self, group: impl AsRef<str>) -> Result<(), HistoryError> {
        self.act(RecordAct::Finish, RecordedSet::group(group.as_ref())).await
    }

    /// Deletes the record of a group. Followers receive a reset, and go on with later messages.
    ///
    /// # Errors
    /// If the group has no record, or no node can delete it.
    pub async fn delete(&self, group: impl AsRef<str>) -> Result<(), HistoryError> {
        self.act(RecordAct::Delete, RecordedSet::group(group.as_ref())).await
    }

    /// Deletes the record of the messages to a user.
    ///
    /// # Errors
    /// If the user has no record, or no node can delete it.
    pub async fn delete_of_user(&self, user_id: impl AsRef<str>) -> Result<(), HistoryError> {
        self.act(RecordAct::Delete, RecordedSet::user(user_id.as_ref())).await
    }

    async fn act(&self, act: RecordAct, set: RecordedSet) -> Result<(), HistoryError> {
        let outcome = request(&self.core, RecordRequest { set, act, ..RecordRequest::default() }).await;
        outcome.map(drop).map_err(|error| match error {
            SendError::History(error) => error,
            // A name that no frame can hold.
            other => HistoryError::TooLarge(other.to_string()),
        })
    }
}

brief_debug!(History, |it| "History of {}", it.core.name());

/// Appends a send to the record of its group or user. Without an id it gets one, so that it can be repeated at another
/// node.
pub(super) async fn append(
    core: &HubCore,
    set: RecordedSet,
    id: Option<ByteString>,
    send: &ServiceMessage,
) -> Result<RecordReply, SendError> {
    let id = Some(id.unwrap_or_else(|| core.records.next_id()));
    request(core, RecordRequest { set, act: RecordAct::Append, id, body: send.to_body(), ..RecordRequest::default() })
        .await
}

/// Sends a request to one node, or to the next one if its links are lost before the answer.
async fn request(core: &HubCore, request: RecordRequest) -> Result<RecordReply, SendError> {
    let Some(_turn) = core.records.requests.turn().await else {
        return Err(unavailable(format!("{WAITING_MAX} sends to recorded groups wait already")));
    };
    let mut tried = 0;
    loop {
        let nodes = recording_nodes(core)?;
        if tried > nodes.len() {
            return Err(unavailable("the links to all nodes were lost"));
        }
        let boots: Vec<_> = nodes.iter().map(|node| ByteString::from(node.peer_name().1)).collect();
        // Messages of a record take the same way as long as the nodes stay, so their order is that of the calls.
        let place = core.records.place_of(&request.set).wrapping_add(tried) % nodes.len();
        let node = nodes.get(place).map(std::slice::from_ref).unwrap_or_default();
        let message =
            |ack_id| ServiceMessage::RecordRequest(RecordRequest { ack_id, nodes: boots.clone(), ..request.clone() });
        match query_all(core, node, message).await?.pop() {
            Some(Ok(ack)) => return read(ack.payload.as_ref().and_then(|payload| RecordReply::decode(payload).ok())),
            Some(Err(NoReply::Timeout)) => return Err(unavailable("the node does not answer")),
            Some(Err(NoReply::NotAsked | NoReply::LinkLost)) | None => tried += 1,
        }
    }
}

/// Linked nodes. Fails if one keeps no records.
fn recording_nodes(core: &HubCore) -> Result<Vec<Arc<Node>>, SendError> {
    let nodes: Vec<_> = core.outbound.nodes().iter().filter(|node| node.is_linked()).cloned().collect();
    match nodes.iter().find(|node| !node.capabilities.records) {
        Some(service) if service.is_of_service() => {
            Err(unavailable("a dialled service keeps no records for Hub::history: use its rules ([[history]])"))
        }
        Some(older) => Err(unavailable(format!("the version of the node {} has no records", older.name()))),
        None if nodes.is_empty() => Err(unavailable("no node is linked")),
        None => Ok(nodes),
    }
}

fn read(reply: Option<RecordReply>) -> Result<RecordReply, SendError> {
    let Some(reply) = reply else { return Err(unavailable("the answer of the node can't be read")) };
    let problem = || reply.problem.to_string();
    Err(SendError::History(match reply.refused {
        None => return Ok(reply),
        Some(RecordRefusal::Finished) => HistoryError::Finished,
        Some(RecordRefusal::Missing) => HistoryError::NotFound,
        Some(RecordRefusal::OtherMessage) => HistoryError::OtherMessage,
        Some(RecordRefusal::TooLarge) => HistoryError::TooLarge(problem()),
        Some(RecordRefusal::Moving | RecordRefusal::Unreachable) => HistoryError::Unavailable(problem()),
    }))
}

fn unavailable(problem: impl Into<String>) -> SendError {
    SendError::History(HistoryError::Unavailable(problem.into()))
}
