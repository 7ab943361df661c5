#![forbid(unsafe_code)]
//! Fuzz targets for everything that parses bytes from strangers.
//!
//! A target is a function that takes any bytes and panics on a violated guarantee: parsers never panic, accepted input
//! survives a round trip, cuts between reads never change the result, scan and decoder agree, and limits hold.
//!
//! `cargo test -p trunkline-fuzz` runs each target with its seeds from `corpus/` and some thousand mutations, identical
//! in every run; `TRUNKLINE_FULL=1` runs fifty times as many. `cargo-fuzz/` wraps the targets for libFuzzer, which
//! searches for new paths as long as it runs: `tests/fuzz/run`.
//!
//! | module | contents |
//! |---|---|
//! | [`random`] | reproducible random numbers |
//! | [`mutation`] | mutations of an input |
//! | [`corpus`] | seeds of a target |
//! | `hub` | hub messages and hub handshakes |
//! | `service` | frames of the service protocol, headers of a link's upgrade, client filters |
//! | `fleet` | messages and greetings between nodes |
//! | `token` | sealed tokens |
//! | `negotiate` | bodies of negotiate requests, app servers' decisions, and manifests |
//! | `websocket` | WebSocket frames of clients |
//! | `compression` | compressed messages of clients |
//! | `request` | PROXY header, load balancer headers, query, origin |
//! | `access_token` | access tokens and key sets |
//! | `config_file` | configuration file of a node |
//! | `trace_context` | W3C trace contexts |
#![expect(clippy::expect_used, reason = "a broken promise ends the run, and the message names the promise")]

pub mod corpus;
pub mod mutation;
pub mod random;

mod access_token;
mod compression;
mod config_file;
mod fleet;
mod hub;
mod negotiate;
mod request;
mod service;
mod token;
mod trace_context;
mod websocket;

pub use access_token::access_tokens;
pub use compression::deflated_messages;
pub use config_file::config_file;
pub use fleet::{greetings, node_messages};
pub use hub::{hub_handshake, hub_json, hub_message_pack};
pub use negotiate::negotiate_bodies;
pub use request::{forwarded_headers, origin, proxy_header, query_string};
pub use service::{client_filters, link_upgrade, service_frames};
pub use token::sealed_tokens;
pub use trace_context::trace_contexts;
pub use websocket::websocket;

/// Fuzz target: a name and a function.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the function, the libFuzzer binary and the folder with seeds.
    pub name: &'static str,
    /// Runs one input; panics on a violated guarantee.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// All targets by name.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name }),*];
    };
}

targets! {
    hub_json,
    hub_message_pack,
    hub_handshake,
    service_frames,
    link_upgrade,
    sealed_tokens,
    negotiate_bodies,
    websocket,
    deflated_messages,
    proxy_header,
    forwarded_headers,
    query_string,
    origin,
    access_tokens,
    config_file,
    node_messages,
    greetings,
    trace_contexts,
    client_filters,
}
