//! Other nodes, as far as shards and links need them: what enters at this node and is another one's.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::service::{ClientInvocation, ServiceMessage};

use crate::net::address::Address;
use crate::shard::inbox::ShardSender;
use crate::shard::slot::{Serial, Slot};
use crate::upstream::{AppServerId, Asker, Hub, HubIndex, LinkHandle};

/// Verdict on a link that an app server opens for a node that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetVerdict {
    /// It is for another node, which the next try may reach, or for one that is gone.
    Refused,
    /// It is for the node at this address, because none has reached that directly.
    CarriedTo(Address),
}

/// Way to the other nodes of the fleet. Nothing here waits.
pub(crate) trait OtherNodes: fmt::Debug + Send + Sync {
    /// Passes a client's result on to the node that asked for it, or where the app server that asked is linked.
    fn pass_result(&self, hub: &str, caller: &str, answer: &ServiceMessage);

    /// Passes a message on that an app server has sent over a link that it dialled, to the nodes whose clients it
    /// reaches no other way. Its epoch is that of this node in which it entered.
    fn pass_on(&self, link: &LinkHandle, message: &ServiceMessage, epoch: i64);

    /// Whether what comes over this link is for the clients of this node: the app server sends it here once only.
    fn is_for_us(&self, link: &LinkHandle) -> bool;

    /// Asks the other nodes a question of such a link that this node answers, too: returns an asker that takes the
    /// answer of this node, and gives the link one for all. `None` if there is nobody else to ask.
    fn ask_too(&self, link: &Arc<LinkHandle>, message: &ServiceMessage) -> Option<Arc<dyn Asker>>;

    /// Asks a client that is not here for a result; the link gets it. `false` if there is nobody to ask.
    fn invoke(&self, link: &Arc<LinkHandle>, request: &ClientInvocation, epoch: i64) -> bool;

    /// Ids of the app servers that have dialled in at other nodes for a hub.
    fn app_servers(&self, hub: &str) -> Vec<String>;

    /// Notes that an app server has opened a link, or lost one.
    fn links_changed(&self);

    /// Judges a link that an app server opens for another node, by its name.
    fn judge_target(&self, hub: &Hub, instance: &str, target: &str) -> TargetVerdict;

    /// Whether there is any other node.
    fn are_any(&self) -> bool;

    /// Whether this node has just started and is still looking for the others.
    fn are_sought(&self) -> bool;

    /// Whether any other node takes clients.
    fn are_ready(&self) -> bool;

    /// Has all nodes begin a new epoch, this one included, because a connection of dial-in is about to leave; each
    /// answers behind what it has passed on before. Returns those that will; `None` when one can't be told.
    fn announce_move(&self, hub: HubIndex, connection_id: &ByteString) -> Option<Vec<AppServerId>>;

    /// Whether connections of a hub of dial-in may move: each message enters the fleet once, and all nodes answer.
    fn let_move(&self, hub: HubIndex) -> bool;

    /// Asks a client for a result that is about to move, once it is known where it is.
    fn invoke_later(&self, link: &Arc<LinkHandle>, request: ClientInvocation);

    /// Takes a client connection over from the node that has it, for this shard.
    fn take_over(&self, hub: &Arc<Hub>, connection_id: &str, shard: &ShardSender, sought: SoughtConnection)
    -> TakeOver;

    /// Says whether the node with this boot id can be asked something now.
    fn reachability(&self, boot: &str) -> Reachability;
}

/// Reachability of another node, as this one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reachability {
    /// This node knows of no other.
    Alone,
    /// It is no member of the fleet, or is gone.
    Unknown,
    /// It answers, and both links to it are open.
    Alive,
    /// It owes answers, or a link to it is missing.
    Late,
    /// Nobody listens at its address.
    Refused,
}

/// Kind of a connection that all nodes are asked for, by which they are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SoughtConnection {
    /// The connection has most likely never begun: late nodes are not waited for.
    New,
    /// Its client was connected before.
    Return,
}

/// Outcome of the take-over of a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakenOver {
    /// It is here, without a socket.
    Here(Slot, Serial),
    /// No other node has it: all say so.
    Nowhere,
    /// No node says that it has it, and not all have answered.
    Unclear,
    /// It can't move, or got lost on the way.
    Failed,
}

/// Take-over of a client connection.
pub(crate) type TakeOver = Pin<Box<dyn Future<Output = TakenOver> + Send>>;

/// No other nodes: what is for nobody here is nobody's.
#[derive(Debug)]
pub(crate) struct NoOtherNodes;

impl OtherNodes for NoOtherNodes {
    fn pass_result(&self, _hub: &str, _caller: &str, _answer: &ServiceMessage) {}

    fn pass_on(&self, _link: &LinkHandle, _message: &ServiceMessage, _epoch: i64) {}

    fn is_for_us(&self, _link: &LinkHandle) -> bool {
        true
    }

    fn ask_too(&self, _link: &Arc<LinkHandle>, _message: &ServiceMessage) -> Option<Arc<dyn Asker>> {
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

    fn are_any(&self) -> bool {
        false
    }

    fn are_ready(&self) -> bool {
        false
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
