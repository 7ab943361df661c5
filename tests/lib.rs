#![forbid(unsafe_code)]
//! Library of the end-to-end tests: real processes, clients and sockets, all on loopback.
//!
//! ```text
//!  scenario ── starts ──► fleet: app servers and proxies, one process each
//!      └────── drives ──► agents: one process per client library, any number of clients in each
//!                    └──► raw clients in this process: bad input, and many idle connections
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`harness`] | processes, clients, balancers, raw sockets |
//! | [`apps`] | app servers that misbehave; the folder's other app servers are programs |
//!
//! `book.rs` runs the code of README and book as doc tests.
//!
//! The other folders: `e2e` (the tests), `azure` (tests of dial-in), `chaos`, `clients` (agents of other languages),
//! `tools`; `bench`, `load`, `simulation` and others are crates.

pub mod apps;
#[cfg(doctest)]
mod book;
pub mod harness;
