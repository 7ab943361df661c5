//! Webhooks: hubs without app servers. Their events are POSTed to URLs in the format of Azure SignalR's upstream.
//!
//! ```text
//!  shards ══ in-memory link ══ LoopbackServer ─► one request at a time per client ─► EventSender ─► back end
//!         ◄═══ completions, closes, pauses ═══ LoopbackServer ◄─────── response ──────────┘
//! ```
//!
//! Some events are sent by another node than the client's: each node has a [table](subject_table) of the users and the
//! connections of all nodes.
//!
//! To the node, a webhook is an app server at the other end of in-memory links, so assignments, closes and client
//! results work as usual. [`LoopbackServer`](loopback_server::LoopbackServer) does no I/O.

mod answer;
mod backlog;
mod client_fact;
mod connect_answer;
mod connect_question;
mod event_sender;
mod loopback_server;
mod signature;
mod subject;
mod subject_log;
mod subject_table;
mod webhook_client;
mod webhook_dialler;
mod webhook_event;
mod webhook_hub;
mod webhook_pool;
mod webhook_presence;
mod webhook_set;

pub(crate) use subject::{HubConnection, HubUser, Subject};
pub(crate) use subject_log::LoggedChange;
pub(crate) use subject_table::{BatchAnswer, SubjectBatch, SubjectChange, SubjectReport};
pub(crate) use webhook_presence::WebhookPresence;
pub(crate) use webhook_set::{Reported, Webhooks};
