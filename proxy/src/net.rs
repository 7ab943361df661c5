//! Networking below HTTP: addresses and their resolution, outgoing connections, clients' sockets, TLS.

mod address;
pub(crate) mod connector;
mod loopback;
mod resolver;
pub(crate) mod socket;
#[cfg(feature = "tls")]
pub(crate) mod tls;

pub(crate) use address::Address;
pub(crate) use loopback::is_loopback_host;
pub use resolver::Resolver;
