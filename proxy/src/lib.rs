#![forbid(unsafe_code)]
//! A Trunkline node: holds SignalR clients and carries them over a few links to app servers.
//!
//! ```text
//!                       ┌──────────────── node ────────────────┐
//!  clients ══ sockets ══│ shard 0 ─┐                           │
//!                       │          ├─ routes (who is where) ───│══ links ══ app servers
//!  clients ══ sockets ══│ shard 1 ─┘                           │
//!                       └──────────────────────────────────────┘
//! ```
//!
//! A shard is one thread and owns its listener, its client connections, their groups and some of the links.
//! Shards share nothing on the delivery path but a lock-free table of routes, and talk by channels.
//!
//! Rooms, lower ones first; a room never imports a higher one (`tests/layers.rs` holds that):
//!
//! | room | what lives there |
//! |---|---|
//! | [`counters`] | what is counted, per shard |
//! | [`logging`] | the log of a node; part of its command line |
//! | [`identity`] | who somebody is: access tokens, their keys, users |
//! | [`config`] | settings: what was typed, what was meant |
//! | [`limits`] | what is counted to hold the limits of the front door |
//! | [`tls`] | certificates: our own, and whom we believe |
//! | [`connector`] | connections to app servers and other nodes, plain or in TLS |
//! | [`socket`] | a client's socket: TCP, or anything else in a box |
//! | [`transport`] | how a client's bytes travel: frames of WebSockets, server-sent events |
//! | [`carried`] | client connections that are carried by requests: the far ends of their pipes |
//! | [`outbox`] | what waits for one client |
//! | [`link`] | links to app servers: manifest, dialling, pools, choice of the home link |
//! | [`directory`] | who is here: the connections, groups and users of a shard |
//! | [`delivery`] | a downward frame, and who gets it |
//! | [`shard`] | what a thread owns, and how other threads reach it |
//! | [`client`] | the life of one client connection |
//! | [`downlink`] | frames of a link, read in turns and given to the shards |
//! | [`endpoint`] | HTTP: negotiate, connect, pass-through, the owner hop |
//! | [`admin`] | health, counters, metrics |
//! | [`node`] | composition: threads, listeners, upstreams, signals |
//! | [`command`] | what the command does besides running a node |

pub mod admin;
pub mod carried;
pub mod client;
#[cfg(feature = "cli")]
pub mod command;
pub mod config;
pub mod connector;
pub mod counters;
pub mod delivery;
pub mod directory;
pub mod downlink;
pub mod endpoint;
pub mod identity;
pub mod limits;
pub mod link;
#[cfg(feature = "cli")]
pub mod logging;
pub mod node;
pub mod outbox;
pub mod shard;
pub mod socket;
#[cfg(feature = "tls")]
pub mod tls;
pub mod transport;
