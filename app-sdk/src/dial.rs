//! Services that the app server dials, as in Azure: links begin here and not at a proxy.
//!
//! ```text
//!  connection string ─► DialledService ─┬─ a ServerPool per hub ─┬─ 5 permanent slots: dial ─► link ─► lost ─► dial …
//!                                       │                        └─ on demand: dial once, for an instance that requests it
//!                                       └─ URL and token for each client that negotiates
//! ```
//!
//! After its handshake a server connection is a link. Its session ends with its socket, because a service cannot resume
//! it and moves clients itself. While the service is unreachable, one slot per hub keeps trying and the others wait.

mod dial_error;
mod dialled_service;
mod pool_pings;
mod protection;
mod server_pool;
mod upgrade;

pub(crate) use dialled_service::DialledService;
pub(crate) use protection::PlainHttp;
pub(crate) use server_pool::{PoolParts, ServerPool};
