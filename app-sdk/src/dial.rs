//! Services that the app server dials: Azure's way, in which links begin here and not at a proxy.
//!
//! ```text
//!  connection string ─► DialledService ─┬─ a ServerPool per hub ─┬─ 5 slots, for ever: dial ─► link ─► lost ─► dial …
//!                                       │                        └─ on demand: dial once, for an instance that asks
//!                                       └─ URL and token for each client that negotiates
//! ```
//!
//! A server connection is a link like any other from its handshake on; its session ends with its socket, because a
//! service can't resume one, and moves the clients itself. While the service can't be reached one slot of a hub tries,
//! and the others wait for it.

mod dial_error;
mod dialled_service;
mod pool_pings;
mod protection;
mod server_pool;
mod tls;
mod upgrade;

pub(crate) use dialled_service::DialledService;
pub(crate) use protection::PlainHttp;
pub(crate) use server_pool::{PoolParts, ServerPool};
