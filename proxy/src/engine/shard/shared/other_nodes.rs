//! Interface of shards and links to other nodes, for messages that enter here and concern another node.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::service::{ClientInvocation, ServiceMessage};

use crate::engine::shard::inbox::ShardSender;
use crate::engine::shard::slot::{Serial, Slot};
use crate::engine::upstream::{AppServerId, Hub, HubIndex, LinkHandle, ReplyTo};
use crate::ground::net::address::Address;

/// Verdict on a link that an app server opens to a named node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetVerdict {
    /// For another node, which the next attempt may reach, or for a lost node.
    Refused,
    /// For the node at this address, because no link has reached it directly.
    CarriedTo(Address),
}

/// Non-blocking access to the other nodes of the fleet.
pub(crate) trait OtherNodes: fmt::Debug + Send + Sync {
    /// Forwards a client result to the requesting node, or to the node of the requesting app server.
    fn pass_result(&self, hub: &str, caller: &str, answer: &ServiceMessage);

    /// Forwards a message of a dialled-in app server to the nodes that it does not reach directly, with this node's
    /// epoch at its arrival.
    fn pass_on(&self, link: &LinkHandle, message: &ServiceMessage, epoch: i64);

    /// Wait for room for further messages of this link at other nodes; `None` with room. Reads of the link wait.
    fn room(&self, link: &LinkHandle) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

    /// Whether messages of this link are for this node's clients: the app server sends each here only once.
    fn is_for_us(&self, link: &LinkHandle) -> bool;

    /// Sends a query of such a link to the other nodes. Returns a target for this node's reply, which merges all
    /// replies; `None` if there are no other nodes.
    fn ask_too(
        &self,
        link: &Arc<LinkHandle>,
        reply_to: &Arc<dyn ReplyTo>,
        message: &ServiceMessage,
    ) -> Option<Arc<dyn ReplyTo>>;

    /// Invokes a client on another node; the link receives the result. Returns `false` if there is no such
    /// node.
    fn invoke(&self, link: &Arc<LinkHandle>, request: &ClientInvocation, epoch: i64) -> bool;

    /// Ids of the app servers that have dialled in at other nodes for a hub.
    fn app_servers(&self, hub: &str) -> Vec<String>;

    /// Notifies that an app server has opened or lost a link.
    fn links_changed(&self);

    /// Checks a link that an app server opens for another node, by its name.
    fn judge_target(&self, hub: &Hub, instance: &str, target: &str) -> TargetVerdict;

    fn is_linked(&self) -> bool;

    /// Whether this node has just started and is still discovering the others.
    fn are_sought(&self) -> bool;

    /// Whether any other node accepts clients.
    fn are_ready(&self) -> bool;

    /// Another node that accepts clients, by its boot id and its address for them.
    fn successor(&self) -> Option<(String, String)>;

    /// Starts a new epoch on all nodes for a dial-in connection that is about to leave. Each node replies after its
    /// earlier forwarded messages. Returns these nodes; `None` if one can't be reached.
    fn announce_move(&self, hub: HubIndex, connection_id: &ByteString) -> Option<Vec<AppServerId>>;

    /// Whether connections of a dial-in hub may move: each message must enter the fleet once, and all nodes reply.
    fn let_move(&self, hub: HubIndex) -> bool;

    /// Invokes a client that is about to move, once its location is settled.
    fn invoke_later(&self, link: &Arc<LinkHandle>, request: ClientInvocation);

    /// Takes a client connection over from its node, for this shard.
    fn take_over(&self, hub: &Arc<Hub>, connection_id: &str, shard: &ShardSender, sought: SoughtConnection)
    -> TakeOver;

    fn reachability(&self, boot: &str) -> Reachability;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reachability {
    /// This node has no other nodes.
    Alone,
    /// Not a member of the fleet, or gone.
    Unknown,
    /// Replies, with both links open.
    Alive,
    /// Overdue replies, or a missing link.
    Late,
    /// Connection refused at its address.
    Refused,
}

/// Kind of a requested connection, which determines how long to wait for nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SoughtConnection {
    /// Most likely never opened: late nodes are not waited for.
    New,
    /// The client was connected before.
    Return,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakenOver {
    /// On this shard, without a socket.
    Here(Slot, Serial),
    /// On no other node, as all have replied.
    Nowhere,
    /// Not found, but not all nodes have replied.
    Unclear,
    /// Can't move, or was lost during the move.
    Failed,
}

pub(crate) type TakeOver = Pin<Box<dyn Future<Output = TakenOver> + Send>>;

/// Absence of other nodes: undeliverable messages are dropped.
#[derive(Debug)]
pub(crate) struct NoOtherNodes;

impl OtherNodes for NoOtherNodes {
    fn pass_result(&self, _hub: &str, _caller: &str, _answer: &ServiceMessage) {}

    fn pass_on(&self, _link: &LinkHandle, _message: &ServiceMessage, _epoch: i64) {}

    fn room(&self, _link: &LinkHandle) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        None
    }

    fn is_for_us(&self, _link: &LinkHandle) -> bool {
        true
    }

    fn ask_too(
        &self,
        _link: &Arc<LinkHandle>,
        _reply_to: &Arc<dyn ReplyTo>,
        _message: &ServiceMessage,
    ) -> Option<Arc<dyn ReplyTo>> {
        None
    }

    fn invoke(&self, _link: &Arc<LinkHandle>, _request: &ClientInvocation, _epoch: i64) -> bool {
        false
    }

    fn app_servers(&self, _hub: &str) -> Vec<String> {
        Vec::new()
    }

    fn links_changed(&self) {}

    fn judge_target(&self, _hub: &Hub, _instance: &str, _target: &str) -> TargetVerdict {
        TargetVerdict::Refused
    }

    fn are_sought(&self) -> bool {
        false
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn are_ready(&self) -> bool {
        false
    }

    fn successor(&self) -> Option<(String, String)> {
        None
    }

    fn announce_move(&self, _hub: HubIndex, _connection_id: &ByteString) -> Option<Vec<AppServerId>> {
        None
    }

    fn let_move(&self, _hub: HubIndex) -> bool {
        false
    }

    fn invoke_later(&self, _link: &Arc<LinkHandle>, _request: ClientInvocation) {}

    fn take_over(
        &self,
        _hub: &Arc<Hub>,
        _connection_id: &str,
        _shard: &ShardSender,
        _sought: SoughtConnection,
    ) -> TakeOver {
        Box::pin(std::future::ready(TakenOver::Nowhere))
    }

    fn reachability(&self, _boot: &str) -> Reachability {
        Reachability::Alone
    }
}
