//! HTTP for clients: the only module with knowledge of paths and status codes.
//!
//! ```text
//!  socket ──► listener ──► PROXY header ──► TLS ──► HTTP/1.1 or HTTP/2
//!                                                          │ request
//!         ┌────────────────────────────────────────────────┘
//!         └► normalise ──► router ─┬─ not a hub's path ──────► pass-through ─► an app server, round robin
//!                                  ├─ another node's client ─► owner hop ────► that node, marked, once
//!                                  └─ ours ─► origin check ─► authenticate (and authorize) ─► limits ─┐
//!         ┌───────────────────────────────────────────────────────────────────────────────────────────┘
//!         ├► negotiate
//!         └► connect: WebSocket upgrade, or the requests of an HTTP transport
//! ```
//!
//! Each shard serves the sockets that it accepts; state shared between shards is behind an `Arc`.

mod admin_cookie;
mod authenticate;
mod authorize;
mod authorizer;
mod bearer;
mod connect;
mod dial_in;
mod endpoint;
mod final_status;
mod fleet_channel;
mod forwarded_header;
mod handover_body;
mod hop_header;
mod hub_request;
mod identify;
mod in_flight;
mod listener;
mod lost_owner;
mod negotiate;
mod normalise;
mod origin_check;
mod path_rule;
mod plain_response;
mod proxy_client;
mod refresh_request;
mod refusal;
mod refusal_source;
mod release;
mod request;
mod request_context;
mod request_head;
mod request_limit;
mod request_query;
mod request_route;
mod request_trace;
mod reservation;
mod reverse_proxy;
mod routed;
mod router;
mod timed_body;
mod upgrade_answer;
mod visitor;

pub(crate) use endpoint::Endpoint;
#[cfg(feature = "fuzzing")]
pub(crate) use forwarded_header::{ForwardedScheme, trusted_claims};
#[cfg(feature = "tls")]
pub(crate) use listener::TlsLayer;
#[cfg(test)]
pub(crate) use listener::serve_pipe;
#[cfg(feature = "fuzzing")]
pub(crate) use listener::{HeaderStart, header_start};
pub(crate) use listener::{Layers, ListenerGate, ListenerService, serve};
pub(crate) use lost_owner::end_gets_of_lost_owners;
pub(crate) use refusal_source::{MIDDLEWARE_HINT, RefusalSource};
pub(crate) use release::release_carried;
#[cfg(test)]
pub(crate) use request_context::RequestSource;
#[cfg(test)]
pub(crate) use request_head::HEADERS_MAX;
#[cfg(feature = "fuzzing")]
pub(crate) use request_query::RequestQuery;
