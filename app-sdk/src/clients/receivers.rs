//! Receivers of a send. Each send costs one frame per proxy.

use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;
use futures_util::future::join_all;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::limits::{LIST_MAX_ITEMS, SEND_ID_MAX_BYTES};
use trunkline_protocol::service::{
    BroadcastData, GroupBroadcastData, MultiConnectionData, MultiGroupBroadcastData, MultiUserData, Payloads,
    RecordedSet, ServiceMessage, UserData,
};

use super::history::append;
use super::sent::{Carriers, Sent};
use crate::connection::Connection;
use crate::encode::{self, Arguments};
use crate::error::{HistoryError, SendError};
use crate::hub_core::{HubCore, Records};
use crate::node::{LossMark, Node};
use crate::outbound::{ManyFrame, checked_frame};

/// Receivers of a message.
#[derive(Clone)]
#[must_use = "receivers get nothing until `send` is called"]
pub struct Receivers {
    pub(super) core: Arc<HubCore>,
    pub(super) to: SendTarget,
    /// Id of the next send, for a record.
    pub(super) id: Option<ByteString>,
}

#[derive(Debug, Clone)]
pub(super) enum SendTarget {
    All { except: Vec<ByteString> },
    Caller(Arc<Connection>),
    Connections(Vec<ByteString>),
    Group { group: ByteString, except: Vec<ByteString> },
    Groups(Vec<ByteString>),
    User(ByteString),
    Users(Vec<ByteString>),
}

impl Receivers {
    /// Gives the send to a [recorded](crate::Hub::history) group or user an id of 1 to 128 bytes, such as that of a row
    /// in a database. A repeated send with this id is recorded once, at any node and from any app server, for as long
    /// as the message is kept, or two minutes (up to 10 000 older ids of a record).
    pub fn id(self, id: impl Into<String>) -> Self {
        Self { id: Some(id.into().into()), ..self }
    }

    /// Calls `method` at the receivers with a tuple of arguments, and waits until the call is queued at every proxy
    /// with an open link.
    ///
    /// The arguments are encoded once per hub protocol and sent as one frame per proxy, for any number of receivers.
    /// Sends that are awaited one after the other arrive in that order. If the queue of a link is full, the send waits;
    /// if the link ends, it continues with the next link to that proxy, or skips the proxy. A send without receivers is
    /// not an error. [`Sent::acknowledged`] waits until the proxies have received it.
    ///
    /// A send to **one** client of this app server, the caller or one connection id, also waits while more than 256 KiB
    /// of messages for this client alone are unconfirmed. Results and stream items wait in the same way. So a method
    /// can send to its caller in a loop, at the speed of the caller, without delaying other clients. The wait ends when
    /// the client disconnects or moves to another app server, as if the send had started then. A client that accepts
    /// nothing for `--slow-client-timeout` is closed. Sends to several connections, groups, users or all, and to
    /// clients of dialled services and other app servers, never wait for a client.
    ///
    /// A send to [recorded](crate::Hub::history) groups or users goes to one proxy, and waits until it is recorded and
    /// queued at the clients of all proxies.
    ///
    /// # Errors
    /// If an argument can't be encoded, a group name is empty, the message is too large for a link or for its single
    /// client, or 1 024 sends already wait for that client. The message is not sent then. For recorded groups and users
    /// the errors of [`HistoryError`](crate::HistoryError).
    pub async fn send(&self, method: &str, arguments: impl Arguments) -> Result<Sent, SendError> {
        self.check()?;
        let since = LossMark::now();
        let (recorded, rest) = self.split_recorded()?;
        if !recorded.is_empty() {
            return self.send_recorded(recorded, rest, (method, &arguments)).await;
        }
        let (proxies, carriers) = match &self.to {
            SendTarget::Caller(caller) => Carriers::one(self.send_to_caller(caller, method, &arguments).await?),
            SendTarget::Connections(ids) => self.send_to_connections(ids, method, &arguments).await?,
            to => {
                let payloads = encode::invocation(method, &arguments, self.core.naming, &self.core.protocols, None)?;
                let (nodes, taken) = self.core.outbound.send_to_all(&checked_frame(&to.message(payloads))?).await;
                (taken, Carriers::All(nodes))
            }
        };
        Ok(Sent::new(proxies, carriers, since))
    }

    /// Recorded sets of the target, and the target that remains.
    fn split_recorded(&self) -> Result<(Vec<RecordedSet>, Option<SendTarget>), SendError> {
        let records = &self.core.records;
        let (sets, rest) = if records.is_empty() { (Vec::new(), None) } else { self.to.recorded(records) };
        match &self.id {
            Some(id) if !(1..=SEND_ID_MAX_BYTES).contains(&id.len()) => Err(HistoryError::IdLength(id.len()).into()),
            Some(_) if sets.is_empty() || rest.is_some() => Err(HistoryError::NotRecorded.into()),
            _ => Ok((sets, rest)),
        }
    }

    async fn send_recorded(
        &self,
        sets: Vec<RecordedSet>,
        rest: Option<SendTarget>,
        (method, arguments): (&str, &impl Arguments),
    ) -> Result<Sent, SendError> {
        let since = LossMark::now();
        let payloads = encode::invocation(method, arguments, self.core.naming, &self.core.protocols, None)?;
        let appends = sets.into_iter().map(|set| {
            let (name, send) = (set.name.clone(), self.to.to_set(&set).message(payloads.clone()));
            async move { Ok::<_, SendError>((name, append(&self.core, set, self.id.clone(), &send).await?)) }
        });
        let rest = rest.map(|to| checked_frame(&to.message(payloads.clone()))).transpose()?;
        let sent_to_rest = async {
            match &rest {
                Some(frame) => self.core.outbound.send_to_all(frame).await,
                None => (Vec::new().into(), 0),
            }
        };
        // All are tried, whichever fails.
        let (appended, (nodes, taken)) = tokio::join!(join_all(appends), sent_to_rest);
        let appended = appended.into_iter().collect::<Result<_, _>>()?;
        Ok(Sent::new(taken, Carriers::All(nodes), since).with_records(appended))
    }

    async fn send_to_caller(
        &self,
        caller: &Arc<Connection>,
        method: &str,
        arguments: &impl Arguments,
    ) -> Result<Option<Arc<Node>>, SendError> {
        let payloads = encode::invocation(method, arguments, self.core.naming, &[caller.protocol], None)?;
        if !self.core.connections.contains(caller) {
            return Ok(None);
        }
        self.core.to(caller).call(payloads).await
    }

    /// Sends to a connection of this app server. Returns `None` if the connection is elsewhere, or has moved meanwhile.
    async fn send_to_local(
        &self,
        id: &ByteString,
        method: &str,
        arguments: &impl Arguments,
    ) -> Result<Option<(usize, Carriers)>, SendError> {
        let Some(connection) = self.core.connections.get(id) else { return Ok(None) };
        let payloads = encode::invocation(method, arguments, self.core.naming, &[connection.protocol], None)?;
        let taken = self.core.to(&connection).call(payloads).await?;
        let has_left = taken.is_none()
            && !self.core.connections.contains(&connection)
            && connection.inbox().reassignment.goes_on();
        Ok((!has_left).then(|| Carriers::one(taken)))
    }

    async fn send_to_connections(
        &self,
        ids: &[ByteString],
        method: &str,
        arguments: &impl Arguments,
    ) -> Result<(usize, Carriers), SendError> {
        if let [id] = ids
            && let Some(outcome) = self.send_to_local(id, method, arguments).await?
        {
            return Ok(outcome);
        }
        let send = self.core.outbound.moves.begin_send();
        let locations = Locations::find(ids, &self.core, send.epoch());
        let protocols = locations.protocols(&self.core.protocols);
        let payloads = encode::invocation(method, arguments, self.core.naming, &protocols, None)?;
        let mut frames = Vec::new();
        let is_for_all = !locations.unknown.is_empty();
        let nodes = locations.all_nodes(&self.core, &payloads);
        for (connection_ids, protocols) in locations.per_node(&nodes, &self.core.protocols) {
            let payloads = only(&payloads, &protocols);
            let message = MultiConnectionData { connection_ids, payloads };
            let frame = checked_frame(&ServiceMessage::MultiConnectionData(message))?;
            frames.push(if is_for_all { ManyFrame::of_send(&send, frame) } else { ManyFrame::plain(frame) });
        }
        let mut proxies = 0;
        for (node, frame) in nodes.iter().zip(frames) {
            proxies += usize::from(self.core.outbound.send(node, frame.for_node(node)).await);
        }
        Ok((proxies, Carriers::Some(nodes)))
    }

    pub(super) fn check(&self) -> Result<(), SendError> {
        let (names, list): (&[ByteString], &[ByteString]) = match &self.to {
            SendTarget::Group { group, except } => (std::slice::from_ref(group), except),
            SendTarget::Groups(groups) => (groups, groups),
            SendTarget::All { except } => (&[], except),
            SendTarget::Connections(list) | SendTarget::Users(list) => (&[], list),
            SendTarget::Caller(_) | SendTarget::User(_) => (&[], &[]),
        };
        if names.iter().any(|name| name.is_empty()) {
            return Err(SendError::EmptyGroupName);
        }
        if list.len() > LIST_MAX_ITEMS {
            return Err(SendError::TooLarge { length: list.len(), limit: LIST_MAX_ITEMS });
        }
        Ok(())
    }
}

impl SendTarget {
    /// Recorded sets of the target, and the target that remains.
    fn recorded(&self, records: &Records) -> (Vec<RecordedSet>, Option<Self>) {
        let one = |set: RecordedSet| if records.is_recorded(&set) { vec![set] } else { Vec::new() };
        let several = |names: &[ByteString], set: fn(ByteString) -> RecordedSet| -> (Vec<_>, Vec<_>) {
            names.iter().cloned().map(set).partition(|set| records.is_recorded(set))
        };
        let rest = |sets: Vec<RecordedSet>, to: fn(Vec<ByteString>) -> Self| {
            (!sets.is_empty()).then(|| to(sets.into_iter().map(|set| set.name).collect()))
        };
        match self {
            Self::Group { group, .. } => (one(RecordedSet::group(group.clone())), None),
            Self::User(user) => (one(RecordedSet::user(user.clone())), None),
            Self::Groups(names) => {
                let (sets, others) = several(names, RecordedSet::group);
                (sets, rest(others, Self::Groups))
            }
            Self::Users(names) => {
                let (sets, others) = several(names, RecordedSet::user);
                (sets, rest(others, Self::Users))
            }
            Self::All { .. } | Self::Caller(_) | Self::Connections(_) => (Vec::new(), None),
        }
    }

    /// Target of the message for the record of a set.
    fn to_set(&self, set: &RecordedSet) -> Self {
        match self {
            Self::Group { .. } => self.clone(),
            _ if set.is_user => Self::User(set.name.clone()),
            _ => Self::Group { group: set.name.clone(), except: Vec::new() },
        }
    }

    /// Builds the message for every proxy; not for receivers that are looked up by connection.
    fn message(&self, payloads: Payloads) -> ServiceMessage {
        match self.clone() {
            SendTarget::All { except } => ServiceMessage::BroadcastData(BroadcastData { excluded: except, payloads }),
            SendTarget::Group { group, except } => ServiceMessage::GroupBroadcastData(GroupBroadcastData {
                group,
                excluded: except,
                payloads,
                ..GroupBroadcastData::default()
            }),
            SendTarget::Groups(groups) => {
                ServiceMessage::MultiGroupBroadcastData(MultiGroupBroadcastData { groups, payloads })
            }
            SendTarget::User(user_id) => ServiceMessage::UserData(UserData { user_id, payloads }),
            SendTarget::Users(user_ids) => ServiceMessage::MultiUserData(MultiUserData { user_ids, payloads }),
            SendTarget::Caller(caller) => ServiceMessage::MultiConnectionData(MultiConnectionData {
                connection_ids: vec![caller.shared_id()],
                payloads,
            }),
            SendTarget::Connections(connection_ids) => {
                ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids, payloads })
            }
        }
    }
}

struct Locations {
    known: Vec<Arc<Connection>>,
    unknown: Vec<ByteString>,
}

impl Locations {
    /// Finds connections for a send of this epoch. After the first move, a movable connection may be at any proxy.
    fn find(ids: &[ByteString], core: &HubCore, epoch: i64) -> Self {
        let mut locations = Self { known: Vec::new(), unknown: Vec::new() };
        for id in ids {
            match core.connections.get(id).filter(|known| epoch == 0 || !known.home.moves_between_nodes()) {
                Some(connection) => locations.known.push(connection),
                None => locations.unknown.push(id.clone()),
            }
        }
        locations
    }

    fn protocols(&self, all: &[HubProtocol]) -> Vec<HubProtocol> {
        if self.unknown.is_empty() { protocols_of(&self.known) } else { all.to_vec() }
    }

    /// Proxies that may have the unknown connections: all linked proxies, and late joiners.
    fn candidates(&self, core: &HubCore, payloads: &Payloads) -> Vec<Arc<Node>> {
        if self.unknown.is_empty() {
            return Vec::new();
        }
        let late = || {
            let (connection_ids, payloads) = (self.unknown.clone(), payloads.clone());
            ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids, payloads }).to_frame()
        };
        core.outbound.nodes_for(late).to_vec()
    }

    /// Proxies that get a frame: of the known connections, and candidates for the unknown ones.
    fn all_nodes(&self, core: &HubCore, payloads: &Payloads) -> Vec<Arc<Node>> {
        let mut nodes = self.candidates(core, payloads);
        for connection in &self.known {
            if !nodes.iter().any(|node| Arc::ptr_eq(node, &connection.node())) {
                nodes.push(connection.node());
            }
        }
        nodes
    }

    /// Connection ids and protocols for each proxy. Unknown connections may be at any of the `nodes`.
    fn per_node(self, nodes: &[Arc<Node>], all: &[HubProtocol]) -> Vec<(Vec<ByteString>, Vec<HubProtocol>)> {
        let share = |node: &Arc<Node>| {
            let here: Vec<_> = self.known.iter().filter(|known| Arc::ptr_eq(&known.node(), node)).cloned().collect();
            let ids = here.iter().map(|known| known.shared_id()).chain(self.unknown.iter().cloned()).collect();
            let protocols = if self.unknown.is_empty() { protocols_of(&here) } else { all.to_vec() };
            (ids, protocols)
        };
        nodes.iter().map(share).collect()
    }
}

impl fmt::Debug for Receivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            SendTarget::Caller(caller) => write!(f, "Caller({})", caller.id()),
            to => to.fmt(f),
        }
    }
}

fn protocols_of(connections: &[Arc<Connection>]) -> Vec<HubProtocol> {
    HubProtocol::ALL
        .into_iter()
        .filter(|&protocol| connections.iter().any(|connection| connection.protocol == protocol))
        .collect()
}

fn only(payloads: &Payloads, protocols: &[HubProtocol]) -> Payloads {
    let chosen = |name: &str| HubProtocol::from_name(name).is_some_and(|protocol| protocols.contains(&protocol));
    Payloads(payloads.0.iter().filter(|(name, _)| chosen(name)).cloned().collect())
}
