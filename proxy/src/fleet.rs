//! The fleet: the other nodes, and what nodes tell, pass on to and ask each other.
//!
//! ```text
//!  --peers, members ──► address book ──► dialler per address ──► greeting ──► member ──► link to it ═══► its admin port
//!  relay, ask, request ──► members that may want it ──► outbox of their links        its link to us ═══► our admin port
//!  what comes ──► node sink ──► route ──► shards
//! ```
//!
//! There is no leader and no store: each node believes what it sees. A node link is the link session of
//! [`trunkline_link`], dialled by the node that sends. What is passed on never waits: a node for which too much waits
//! misses it, and that is counted. A node without `--peers` has a fleet of one, and nothing here runs.

mod accepted_link;
mod accepted_socket;
mod address_book;
mod app_presence;
mod carry;
mod channel_host;
mod combined_answer;
mod crash;
mod dial_in_question;
mod dial_in_relay;
mod dialler;
mod disagreement_notice;
mod entry;
mod fleet_core;
mod fleet_counters;
mod fleet_member;
mod fleet_membership;
mod fleet_route;
mod gathered_page;
mod housekeeping;
mod link_over;
mod link_reach;
mod link_wish;
mod member_links;
mod member_name;
mod member_table;
mod node_link;
mod node_question;
mod node_sink;
mod own_answer;
mod passage;
mod peer_request;
mod question;
mod relayed_message;
mod shared_name;
mod take_over;
mod user_group_copy;

pub(crate) use channel_host::{ChannelLock, ChannelRefused, OwnNames, open_channel};
pub(crate) use entry::{FleetAnswer, FleetDelivery, FleetEntry, InvocationOutcome, NamedHub};
pub(crate) use fleet_core::Fleet;
#[cfg(test)]
pub(crate) use fleet_counters::DropCause;
pub(crate) use fleet_counters::FleetCounters;
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
