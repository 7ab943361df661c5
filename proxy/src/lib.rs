#![forbid(unsafe_code)]
//! A Trunkline node: holds SignalR clients and multiplexes them over a few links to app servers.
//!
//! ```text
//!                       ┌──────────────── node ────────────────┐
//!  clients ══ sockets ══│ shard 0 ─┐                           │
//!                       │          ├─ routes (client → shard) ─│══ links ══ app servers
//!  clients ══ sockets ══│ shard 1 ─┘                           │
//!                       └──────────────────────────────────────┘
//! ```
//!
//! A shard is one thread that owns its listener, its client connections, their groups and some of the links. On the
//! delivery path, shards share only a lock-free route table and communicate through channels.
//!
//! Modules, lowest first; a module never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | `clock` | the system clock as Unix time |
//! | `bounded` | permits, budgets and tables with limits, for general use |
//! | `condition` | states that keep users from being served: catalogue and registry |
//! | `metrics` | counters and histograms of each shard |
//! | `telemetry` | spans of this node: sampling, open spans, export queue |
//! | `net` | addresses, outgoing connections, client sockets, TLS |
//! | `auth` | keys and policies of access tokens, users, and the admin token, as plain values |
//! | `routing` | rules of the operator: groups, routes, mirrors, methods |
//! | `config` | settings of a node, validated |
//! | `limits` | connection permits, throttles and pending negotiations per address |
//! | `transport` | client transports: WebSocket frames, server-sent events, HTTP transports |
//! | `upstream` | app servers: manifest, hubs, pools, dialling |
//! | `shard` | state of one thread: client connections, groups, delivery |
//! | `client` | service of one client connection |
//! | `link` | task of each link: routes frames from an app server to the shards |
//! | `inspection` | reading of clients and sets of shards, in short steps |
//! | `admission` | verification of tokens, their keys, revocations |
//! | `user_group` | time-limited memberships of users in groups, for later connections too |
//! | `store` | revocations and memberships in an engine that outlives the nodes |
//! | `dialled_in` | links dialled by app servers with Azure's SDK |
//! | `presence_feed` | presence of users and group members, reported to subscribed app servers |
//! | `mirror` | copies of client connections for other app servers |
//! | `watch` | live copies of client messages for the observer: taps, traces |
//! | `webhook` | webhooks in place of app servers: client events as requests, responses as completions |
//! | `fleet` | other nodes: membership, links, relayed messages and queries |
//! | `rest` | REST data plane: sends, queries and changes by requests of back ends |
//! | `frontend` | HTTP for clients: negotiate, connect, pass-through, owner hop |
//! | `observer` | snapshots of this node and the fleet, inspection of shards, taps, peers |
//! | `admin` | admin port: health, metrics, the observer page and its API |
//! | `otlp` | export of spans and metrics to an OpenTelemetry collector |
//! | `node` | composition: threads, listeners, upstreams, signals |
//! | `parts` | parts of a node used by the `trunkline` command |
//! | `fuzzing` | entry points of the parsers, for fuzz targets |

pub(crate) mod admin;
pub(crate) mod admission;
pub(crate) mod auth;
pub(crate) mod bounded;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod condition;
pub(crate) mod config;
#[cfg(test)]
mod contract;
pub(crate) mod dialled_in;
pub(crate) mod fleet;
pub(crate) mod frontend;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod inspection;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod observer;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
#[doc(hidden)]
pub mod parts;
pub(crate) mod presence_feed;
pub(crate) mod rest;
pub(crate) mod routing;
pub(crate) mod shard;
#[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "there is a store only with an engine"))]
pub(crate) mod store;
#[cfg_attr(
    not(any(feature = "otlp", test)),
    expect(dead_code, reason = "there are spans only where something can export them")
)]
pub(crate) mod telemetry;
pub(crate) mod transport;
pub(crate) mod upstream;
pub(crate) mod user_group;
pub(crate) mod watch;
pub(crate) mod webhook;

pub use auth::AdminToken;
pub use config::{Config, OriginError, OriginPattern, Settings};
pub use net::resolver::Resolver;
pub use node::{AppListener, Embedded, Node};
#[doc(hidden)]
pub use transport::websocket;
pub use upstream::{BackEndState, MemoryDialler, MemoryLink};
