//! Webhooks: hubs without app servers, whose events are POSTed to URLs in the form of Azure SignalR's upstream.
//!
//! ```text
//!  shards ══ link in memory ══ FarEnd ─► one request at a time for each client ─► Courier ─► back end
//!         ◄═══ completions, closes, pauses ═══ FarEnd ◄─────── answer ───────────────┘
//! ```
//!
//! For the node a webhook is an app server at the far end of links in memory, so homes, ends and client results are
//! what they are for any other. [`FarEnd`](far_end::FarEnd) does no I/O: frames and answers in, frames and requests
//! out.

mod answer;
mod backlog;
mod client_fact;
mod courier;
mod far_end;
mod signature;
mod webhook_client;
mod webhook_dialler;
mod webhook_event;
mod webhook_hub;
mod webhook_set;

pub(crate) use webhook_set::Webhooks;
