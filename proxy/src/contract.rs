//! Contract tests of a node: what it owes to clients and to app servers.
//!
//! One process, no sockets, no tools: the node's shards run on the test's own thread, a scripted app server holds the
//! far end of links in memory, and raw clients speak HTTP/1.1 and WebSockets over pipes. Time is paused, so minutes of
//! silence pass at once, and a test that waits for something that never comes fails at once, too.
//!
//! ```text
//!  Client ══ pipe ══ hyper ── frontend ── shards ── links in memory ══ AppLink (scripted)
//! ```
//!
//! Nothing here sleeps to see that nothing comes: a fence is sent behind it on the same ordered path.

mod app;
mod client;
mod http;
mod stage;
mod webhook_server;

mod acks;
mod announcing;
mod carrying;
mod closing;
mod coming_back;
mod connecting;
mod crashing;
mod data_plane;
mod delivering;
mod dialling_in;
mod draining;
mod forgetting;
mod guarding;
mod http_transports;
mod identifying;
mod idle_sockets;
mod keeping_alive;
mod mirroring;
mod moving_at_doors;
mod moving_away;
mod odd_heads;
mod passing_on;
mod pooled_clients;
mod promising;
mod reassigning;
mod rebalancing;
mod receiving;
#[cfg(feature = "cli")]
mod recording;
mod refusing;
mod restoring;
mod results;
mod routed;
mod sampling;
mod sharing;
#[cfg(feature = "cli")]
mod specialising;
mod standing;
mod telling_presence;
mod tracing;
mod waiting;
mod webhooks;
