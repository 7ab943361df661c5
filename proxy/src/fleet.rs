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
mod address_book;
mod app_presence;
mod channel_host;
mod combined_answer;
mod crash;
mod dial_in_relay;
mod dialler;
mod entry;
mod fleet_core;
mod fleet_member;
mod fleet_membership;
mod fleet_recorder;
mod fleet_relay;
mod fleet_route;
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
mod record_hand_over;
mod record_lane;
mod record_round;
mod take_over;

pub(crate) use address_book::{AddressProblem, AddressProblemKind};
pub(crate) use channel_host::{ChannelLock, ChannelRefused, OwnNames, open_channel};
pub(crate) use entry::{FleetAnswer, FleetDelivery, FleetEntry, InvocationOutcome, NamedHub};
pub(crate) use fleet_core::{Fleet, NodeStores};
pub(crate) use fleet_member::FleetMember;
pub use fleet_member::MemberState;
pub(crate) use fleet_membership::own_phase;
pub(crate) use fleet_route::routes;
pub(crate) use housekeeping::keep_fleet;
#[cfg(test)]
pub(crate) use node_link::DropCause;
pub(crate) use node_link::FleetCounters;
pub(crate) use node_question::{ANSWER_TIMEOUT, Answers, parts_of};
pub(crate) use peer_request::{FromNode, PeerRequest, PeerResponse};
#[cfg(test)]
pub(crate) use question::NoAnswer;
pub(crate) use question::QUESTIONS_MAX;
