#![forbid(unsafe_code)]
//! Library of the end-to-end tests and the benchmarks: real processes, clients and sockets, all on loopback.
//!
//! ```text
//!  scenario ── starts ──► fleet: app servers and proxies, one process each
//!      └────── drives ──► agents: one process per client library, any number of clients in each
//!                    └──► raw clients in this process: bad input, and many idle connections
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`harness`] | processes, clients, balancers, raw sockets |
//! | [`apps`] | app servers that misbehave; the others in that folder are programs |
//! | `bench` | what the benchmarks share |
//!
//! `book.rs` has the code of README and book, as doc tests.
//!
//! The other folders: `e2e` (the tests), `azure` (those of Azure's door), `chaos`, `load`, `simulation`, `clients`
//! (agents of other languages), `tools`.

pub mod apps;
pub mod bench;
#[cfg(doctest)]
mod book;
pub mod harness;
