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
//! Layers, lowest first. Each has a folder with its name, and lists its modules in its head, lowest first too. A module
//! never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | `ground` | tools, settings and environment: clocks, limits, sockets, keys, rules |
//! | `engine` | path of each message, life of each client connection |
//! | `features` | beside the engine, each behind a seam: admission, groups of users, webhooks, mirrors, traces |
//! | `fleet` | other nodes: membership, links, relayed messages and queries |
//! | `edge` | HTTP for clients, back ends and operators |
//! | `node` | composition: threads, listeners, upstreams, signals |
//! | `parts` | parts of a node used by the `trunkline` command |
//! | `fuzzing` | entry points of the parsers, for fuzz targets |

#[cfg(test)]
mod contract;
pub(crate) mod edge;
pub(crate) mod engine;
pub(crate) mod features;
pub(crate) mod fleet;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod ground;
pub(crate) mod node;
#[doc(hidden)]
pub mod parts;

#[doc(hidden)]
pub use engine::transport::websocket;
pub use engine::upstream::{BackEndState, MemoryDialler, MemoryLink};
pub use ground::auth::AdminToken;
pub use ground::config::{Config, OriginPattern, Settings};
pub use ground::net::resolver::Resolver;
pub use node::{AppListener, Embedded, Node};
