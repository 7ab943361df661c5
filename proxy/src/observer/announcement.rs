//! Announcements: an operator's message to the clients of a hub, at all nodes of the fleet.
//!
//! ```text
//!  announcement ──► one invocation, in both hub protocols ─┬─► shards of this node ──────────────► number of receivers
//!                                                          └─► nodes that may have receivers ────► ack of each
//! ```
//!
//! The receivers of a node are counted by its shards when they deliver: both are commands of one batch.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, oneshot};
use tracing::info;
use trunkline_protocol::fleet::Wanted;
use trunkline_protocol::hub::{HubMessage, HubProtocol, Invocation, PayloadError};
use trunkline_protocol::manifest::EndpointKind;
use trunkline_protocol::service::{
    Ack, BroadcastData, GroupBroadcastData, MemberPage, Payloads, ServiceMessage, UserData,
};

use crate::fleet::Fleet;
use crate::link::receivers_of;
use crate::shard::{Framed, MemberTally, Receivers, SendOrigin, ShardCommand, Shared};
use crate::upstream::{AppServerId, Asker, HubIndex};

/// Announcements under way at a time. One that waits for a silent node takes some seconds.
const UNDER_WAY_MAX: usize = 32;

/// Message of an operator to clients of one hub.
#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) hub: String,
    pub(crate) to: Announcees,
    /// Method that is invoked at the clients.
    pub(crate) target: String,
    pub(crate) arguments: Vec<Value>,
}

/// Receivers of an announcement within its hub.
#[derive(Debug)]
pub(crate) enum Announcees {
    Everyone,
    Group(String),
    User(String),
}

/// Outcome of an announcement.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AnnouncementReport {
    /// Nodes that have given it to their receivers, this one included; a node without receivers counts, too.
    pub(crate) nodes: u64,
    /// Names of the nodes that did not answer.
    pub(crate) missing: Vec<String>,
    /// Clients that it was given to.
    pub(crate) clients: u64,
}

/// Reason why nothing was announced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnouncementError {
    #[error("no node that answers has this hub")]
    UnknownHub,
    #[error("is a raw endpoint: its clients speak no hub protocol, so there is nothing to invoke")]
    RawEndpoint,
    #[error("can't be written in a hub protocol: {0}")]
    Arguments(#[from] PayloadError),
    #[error("{UNDER_WAY_MAX} announcements are under way, and no more can be")]
    TooMany,
    #[error("this node is stopping")]
    Stopping,
}

/// Announcer of this node; its clones are one. Announcements arrive in the order in which they begin.
#[derive(Debug, Clone)]
pub(super) struct Announcer(Arc<AnnouncerState>);

#[derive(Debug)]
struct AnnouncerState {
    shared: Arc<Shared>,
    fleet: Fleet,
    under_way: Arc<Semaphore>,
    /// Turn of the announcement that is given to shards and nodes; the next one follows it everywhere.
    turn: AsyncMutex<()>,
}

impl Announcer {
    pub(super) fn new(shared: Arc<Shared>, fleet: Fleet) -> Self {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self(Arc::new(AnnouncerState { shared, fleet, under_way, turn: AsyncMutex::default() }))
    }

    /// Gives an announcement to its receivers at all nodes.
    ///
    /// # Errors
    /// When nobody has received it.
    pub(super) async fn announce(&self, announcement: Announcement) -> Result<AnnouncementReport, AnnouncementError> {
        let permit = self.0.under_way.clone().try_acquire_owned().map_err(|_| AnnouncementError::TooMany)?;
        let announcer = self.0.clone();
        // In a task of its own: a caller that goes away leaves nothing announced by half.
        let announcing = tokio::spawn(async move {
            let _permit = permit;
            announcer.announce(&announcement).await
        });
        announcing.await.unwrap_or(Err(AnnouncementError::Stopping))
    }
}

impl AnnouncerState {
    async fn announce(&self, announcement: &Announcement) -> Result<AnnouncementReport, AnnouncementError> {
        let hub = self.shared.hubs.named(&announcement.hub);
        if hub.as_ref().is_some_and(|hub| hub.settings().kind == EndpointKind::Raw) {
            return Err(AnnouncementError::RawEndpoint);
        }
        let (message, payloads) = announcement.message()?;
        let turn = self.turn.lock().await;
        let own = match (&hub, receivers_of(&message)) {
            (Some(hub), Some(to)) => Some(self.give(hub.index(), to, &payloads).await),
            _ => None,
        };
        let members = self.fleet.members().len() as u64;
        let asked = self.fleet.ask(&announcement.hub, &[announcement.to.wanted()], &message);
        drop(turn);
        let count = async {
            match own {
                Some(counted) => counted.await.map_err(|_| AnnouncementError::Stopping),
                None => Ok(0),
            }
        };
        let (own, answers) = tokio::join!(count, asked);
        let told = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let missing: Vec<String> =
            answers.iter().filter(|(_, answer)| answer.is_err()).map(|(member, _)| member.name().to_owned()).collect();
        // A node that has not answered may have it.
        if hub.is_none() && missing.is_empty() && told.clone().all(Option::is_none) {
            return Err(AnnouncementError::UnknownHub);
        }
        let clients = own? + told.flatten().map(receivers_counted).sum::<u64>();
        let nodes = (1 + members).saturating_sub(missing.len() as u64);
        let (hub, method) = (&announcement.hub, &announcement.target);
        let silent = (!missing.is_empty()).then(|| missing.join(", "));
        info!(hub, method, clients, nodes, missing = silent, "an operator has announced something");
        Ok(AnnouncementReport { nodes, missing, clients })
    }

    /// Gives a message to all shards of this node; returns the number of its receivers, once they are counted.
    async fn give(&self, hub: HubIndex, to: Receivers, payloads: &Payloads) -> oneshot::Receiver<u64> {
        let (counted, count) = oneshot::channel();
        let tally = MemberTally::new(Arc::new(CountAsker { hub, counted: Mutex::new(Some(counted)) }), 0);
        let message = Framed::new(payloads);
        let bytes = payloads.0.iter().map(|(_, payload)| payload.len()).sum();
        for shard in self.shared.shards() {
            let commands = vec![
                ShardCommand::CountReceivers { hub, to: to.clone(), tally: tally.clone() },
                ShardCommand::Send { hub, to: to.clone(), message: message.clone(), origin: SendOrigin::OtherNode },
            ];
            shard.give(commands, bytes).await;
        }
        count
    }
}

impl Announcement {
    /// Builds the service message, as an app server would send it, with its payloads.
    fn message(&self) -> Result<(ServiceMessage, Payloads), PayloadError> {
        let mut payloads = Payloads::default();
        for protocol in HubProtocol::ALL {
            let arguments = self.arguments.iter().map(|argument| protocol.payload(argument));
            let call = Invocation {
                target: self.target.as_str().into(),
                arguments: arguments.collect::<Result<_, _>>()?,
                ..Invocation::default()
            };
            let mut encoded = BytesMut::new();
            protocol.encode(&HubMessage::Invocation(call), &mut encoded);
            payloads.0.push((protocol.name().into(), encoded.freeze()));
        }
        let (excluded, copy) = (Vec::new(), payloads.clone());
        let message = match &self.to {
            Announcees::Everyone => ServiceMessage::BroadcastData(BroadcastData { excluded, payloads }),
            Announcees::Group(group) => {
                let group = group.as_str().into();
                ServiceMessage::GroupBroadcastData(GroupBroadcastData { group, payloads, ..Default::default() })
            }
            Announcees::User(user) => ServiceMessage::UserData(UserData { user_id: user.as_str().into(), payloads }),
        };
        Ok((message, copy))
    }
}

impl Announcees {
    fn wanted(&self) -> Wanted<'_> {
        match self {
            Self::Everyone => Wanted::Everyone,
            Self::Group(group) => Wanted::Group(group),
            Self::User(user) => Wanted::User(user),
        }
    }
}

/// Asker of the shards of this node for the number of receivers.
#[derive(Debug)]
struct CountAsker {
    hub: HubIndex,
    counted: Mutex<Option<oneshot::Sender<u64>>>,
}

impl Asker for CountAsker {
    fn hub(&self) -> HubIndex {
        self.hub
    }

    fn app(&self) -> AppServerId {
        AppServerId::OTHER_NODE
    }

    fn answer(&self, message: &ServiceMessage) {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Sending fails when nobody waits any more: the node is stopping.
        counted.map(|counted| counted.send(receivers_counted(message)));
    }
}

/// Number of receivers that an ack tells.
fn receivers_counted(message: &ServiceMessage) -> u64 {
    let ServiceMessage::Ack(Ack { payload: Some(payload), .. }) = message else { return 0 };
    MemberPage::from_payload(payload).ok().and_then(|page| page.count).unwrap_or_default()
}
