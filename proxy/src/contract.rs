//! Contract tests: the behaviour that a node guarantees to clients and app servers.
//!
//! A single process without sockets: the node's shards run on the test's thread, a scripted app server holds the other
//! ends of in-memory links, and raw clients speak HTTP/1.1 and WebSockets over pipes. Time is paused, so minutes of
//! silence pass instantly, and a wait for a missing message fails instantly.
//!
//! ```text
//!  Client ══ pipe ══ hyper ── frontend ── shards ── in-memory links ══ AppLink (scripted)
//! ```
//!
//! Tests are marked `#[tokio::test(crate = "paused")]`. They begin with a scene of `scene.rs`: a node, its app servers,
//! and their clients.
//!
//! No test sleeps to prove that a message is absent: it sends a fence behind it on the same ordered path.

mod app;
mod client;
mod fixture;
mod followed_records;
mod http;
mod hub_message;
mod scene;
mod webhook_server;

mod acknowledgements;
mod announcements;
mod app_keys;
mod app_rates;
mod app_records;
mod carried_requests;
mod channel_hellos;
mod client_messages;
mod client_pools;
mod client_results;
mod client_routes;
mod client_turns;
mod closes;
mod compressed_clients;
mod conditions;
mod connects;
mod deliveries;
mod drains;
mod evicted_hubs;
mod fleet_nodes;
mod fleet_promises;
mod group_orders;
mod half_lost_links;
mod http_transports;
mod hub_separation;
mod identification;
mod idle_sockets;
mod inbound_links;
mod inbound_moves;
mod keep_alives;
mod link_permits;
mod live_traces;
mod lost_clients;
mod message_routes;
mod method_firewall;
mod metrics_text;
mod mirrors;
mod moves;
mod presence_events;
mod presence_feeds;
mod reassignments;
mod rebalanced_clients;
mod rebalances;
mod refreshed_log_ins;
mod request_guards;
mod request_heads;
mod rest_data_plane;
mod rest_lists;
mod rest_stream_items;
mod revocations;
mod secret_files;
mod slow_clients;
mod slow_uplinks;
mod stateful_reconnect;
mod stored_records;
mod take_overs;
mod timelines;
mod trace_sampling;
mod unassigned_clients;
mod unread_answers;
mod webhook_tables;
mod webhooks;
