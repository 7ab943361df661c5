//! The fleet: communication with the other nodes.
//!
//! ```text
//!  --peers, members ──► address book ──► dialler per address ──► greeting ──► member ──► outgoing link ═══► its admin port
//!  relay, query, request ──► interested members ──► outboxes of their links               incoming link ═══► our admin port
//!  received messages ──► node sink ──► route ──► shards
//! ```
//!
//! There is no leader and no store: each node acts on its own view. A node link is a link session of
//! [`trunkline_link`], dialled by the sending node. Relaying never waits: a node's full queue drops the message and
//! counts it. A node without `--peers` runs none of this.

mod accepted_link;
mod accepted_socket;
mod address_book;
mod app_presence;
mod channel_host;
mod combined_answer;
mod crash;
mod dial_in_question;
mod dial_in_relay;
mod dialler;
mod entry;
mod fleet_core;
mod fleet_member;
mod fleet_membership;
mod fleet_relay;
mod fleet_route;
mod gathered_page;
mod housekeeping;
mod link_reach;
mod link_request_schedule;
mod member_links;
mod member_table;
mod node_link;
mod node_question;
mod node_queue;
mod node_sink;
mod own_interest;
mod peer_request;
mod question;
mod relayed_message;
mod take_over;
mod user_group_copy;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use trunkline_link::{LinkEnd, SocketStop, WrittenPiece};
use trunkline_protocol::limits::LINK_TIMEOUT_MS;
use trunkline_protocol::service::{Attachment, Role, ServiceMessage};

use crate::admission::Admission;
use crate::auth::AccessSettings;
use crate::config::Settings;
use crate::link::{SocketCarrier, SocketMeter};
use crate::metrics::{Counter, label, metered};
use crate::net::address::Address;
use crate::net::connector::Connector;
use crate::shard::{Seams, SetInterest, Shared};
use crate::store::Store;
use crate::upstream::{AppServerId, HubIndex, ReplyTo};
use crate::user_group::UserGroups;

use fleet_membership::Membership;
use node_link::NodeLink;
use own_interest::OwnInterest;

pub(crate) use address_book::{AddressProblem, AddressProblemKind};
pub(crate) use channel_host::{ChannelLock, ChannelRefused, OwnNames, open_channel};
pub(crate) use entry::{FleetAnswer, FleetDelivery, FleetEntry, InvocationOutcome, NamedHub};
pub(crate) use fleet_core::Fleet;
#[cfg(test)]
pub(crate) use fleet_counters::DropCause;
pub(crate) use fleet_member::FleetMember;
pub use fleet_member::MemberState;
pub(crate) use fleet_membership::own_phase;
pub(crate) use fleet_route::routes;
pub(crate) use housekeeping::keep_fleet;
pub(crate) use node_question::{ANSWER_TIMEOUT, Answers};
pub(crate) use peer_request::{FromNode, PeerRequest, PeerResponse};
#[cfg(test)]
pub(crate) use question::NoAnswer;
pub(crate) use question::QUESTIONS_MAX;

fn node_carrier<'a>(
    link: &'a NodeLink,
    counters: &'a FleetCounters,
    attachment: Attachment,
    stop: SocketStop,
) -> SocketCarrier<'a, &'a FleetCounters> {
    let (outbox, clock) = (link.outbox(), link.clock());
    let piece_timeout = Some(Duration::from_millis(LINK_TIMEOUT_MS));
    SocketCarrier { outbox, clock, attachment, piece_timeout, stop, meter: counters }
}

impl SocketMeter for &FleetCounters {
    fn count_written(&self, piece: WrittenPiece) {
        self.sent.add(piece.frames);
        self.sent_bytes.add(piece.bytes as u64);
    }
}

label! {
    /// Cause of dropping a message for a node.
    pub(crate) enum DropCause as "cause", in DropCounters {
        /// The queue of the node is full.
        Full = "full",
        /// The member has no link.
        Unlinked = "unlinked",
        /// The link was lost for longer than its window, including messages in flight.
        Lost = "lost",
        /// Larger than the frame limit of a link.
        TooLarge = "too_large",
        /// Received, but not readable.
        Malformed = "malformed",
    }
}

metered! {
    pub(crate) struct FleetCounters {
        #[metric("trunkline_fleet_frames_total", "Messages between nodes.", direction = "sent")]
        pub(crate) sent: Counter,
        #[metric("trunkline_fleet_frames_total", direction = "received")]
        pub(crate) received: Counter,
        #[metric("trunkline_fleet_bytes_total", "Bytes between nodes.", direction = "sent")]
        pub(crate) sent_bytes: Counter,
        #[metric("trunkline_fleet_bytes_total", direction = "received")]
        pub(crate) received_bytes: Counter,
        #[metric("trunkline_fleet_dropped_total", "Messages between nodes that were dropped, by cause.")]
        dropped: DropCounters,
    }
}

impl FleetCounters {
    fn drop_messages(&self, cause: DropCause, count: u64) {
        self.dropped.of(cause).add(count);
    }

    #[cfg(test)]
    pub(crate) fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped.of(cause).get()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LinkOver {
    reason: String,
    /// The peer node is certainly gone: it said goodbye, or another start answers.
    is_gone: bool,
}

impl LinkOver {
    /// End for this reason; the node may still be alive.
    fn because(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), is_gone: false }
    }

    fn gone(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), is_gone: true }
    }
}

impl From<&LinkEnd> for LinkOver {
    fn from(end: &LinkEnd) -> Self {
        match end {
            LinkEnd::Goodbye(_) => Self::gone("the node has closed the link"),
            LinkEnd::Shutdown => Self::because("this node stops, or the other node has restarted"),
            LinkEnd::Closed => Self::because("the node has closed the socket"),
            LinkEnd::Silent => Self::because("the node is silent"),
            LinkEnd::Stuck => Self::because("the node does not read"),
            LinkEnd::Replaced => Self::because("a newer socket has replaced this one"),
            LinkEnd::Text => Self::because("the node has sent a text message"),
            // The remaining reasons name neither end.
            other => Self::because(other.reason(Role::Proxy)),
        }
    }
}

/// Retry interval for unresolved names. The name of a new node may appear only once it is healthy.
const LEARN_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of concurrent DNS lookups.
const RESOLVED_AT_ONCE: usize = 16;

/// Records the machine of a member's link as a possible address of its name.
fn note_address(shared: &Shared, member: &FleetMember) {
    let (Some(name), Some(link)) = (name_of(member), member.address()) else { return };
    let ip = link.resolved().map(|at| at.ip()).or_else(|| link.host().parse::<IpAddr>().ok());
    if let (Some(ip), Some(port)) = (ip, name.port()) {
        shared.ways.node_names.note_reported(&name, SocketAddr::new(ip, port));
    }
}

/// Resolves the names of members, once each.
async fn keep_names(members: &Membership) {
    let mut learning = interval(LEARN_INTERVAL);
    learning.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        learning.tick().await;
        let names: Vec<_> = members.all().iter().filter_map(|member| name_of(member)).collect();
        let node_names = &members.shared().ways.node_names;
        stream::iter(&names).for_each_concurrent(RESOLVED_AT_ONCE, |name| node_names.resolve_once(name)).await;
    }
}

/// Name of a member for requests, as in its connection tokens.
fn name_of(member: &FleetMember) -> Option<Address> {
    Some(member.client_port()?.of_start(member.boot()))
}

#[derive(Debug, Clone)]
pub(crate) struct NodeStores {
    pub admission: Arc<Admission>,
    pub user_groups: Arc<UserGroups>,
    /// Store of what must outlive the last node; `None` without one.
    pub store: Option<Arc<Store>>,
    /// Subscriptions of this node at other nodes; `None` for a node without peers.
    interest: Option<Arc<OwnInterest>>,
}

impl NodeStores {
    /// `issuers` fetches keys of token issuers.
    pub(crate) fn new(settings: &Settings, access: AccessSettings, issuers: Connector) -> Self {
        let admission = Admission::new(&settings.keys, access, issuers);
        let user_groups = UserGroups::of_node(settings, &admission.signing_keys);
        let interest = settings.fleet.has_peers().then(Arc::default);
        let store = Store::of_node(settings, (&admission, &user_groups));
        Self { admission, user_groups, store, interest }
    }

    /// Creates the stores of a node with access keys only.
    pub(crate) fn with_keys_alone(settings: &Settings) -> Self {
        Self::new(settings, AccessSettings::default(), Connector::default())
    }

    pub(crate) fn seams(&self) -> Seams {
        let interest = self.interest.clone().map(|interest| interest as Arc<dyn SetInterest>);
        Seams { access: self.admission.clone(), user_groups: self.user_groups.clone(), interest }
    }
}

/// Reply handle that passes this node's answer to a receiver.
#[derive(Debug)]
struct OwnAnswer {
    hub: HubIndex,
    app: AppServerId,
    answer: Mutex<Option<oneshot::Sender<ServiceMessage>>>,
}

impl OwnAnswer {
    fn of(hub: HubIndex, app: AppServerId) -> (Arc<dyn ReplyTo>, oneshot::Receiver<ServiceMessage>) {
        let (sender, answer) = oneshot::channel();
        (Arc::new(Self { hub, app, answer: Mutex::new(Some(sender)) }), answer)
    }
}

impl ReplyTo for OwnAnswer {
    fn hub(&self) -> HubIndex {
        self.hub
    }

    fn app(&self) -> AppServerId {
        self.app
    }

    fn answer(&self, message: &ServiceMessage) {
        let sender = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Fails when the receiver is gone.
        sender.into_iter().for_each(|sender| drop(sender.send(message.clone())));
    }
}

/// Reply handle of a relayed message, which has no answer.
#[derive(Debug)]
struct NoReply(HubIndex);

impl ReplyTo for NoReply {
    fn hub(&self) -> HubIndex {
        self.0
    }

    fn app(&self) -> AppServerId {
        AppServerId::OTHER_NODE
    }

    fn answer(&self, _message: &ServiceMessage) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_said_goodbye_is_gone_and_the_reason_names_no_app_server() {
        assert!(LinkOver::from(&LinkEnd::Goodbye(String::new())).is_gone);
        for end in
            [LinkEnd::Closed, LinkEnd::Silent, LinkEnd::Stuck, LinkEnd::Replaced, LinkEnd::Shutdown, LinkEnd::Text]
        {
            let over = LinkOver::from(&end);
            assert!(!over.is_gone && !over.reason.contains("app server"), "{over:?}");
        }
    }
}
