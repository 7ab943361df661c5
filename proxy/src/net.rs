//! Sockets below HTTP: connections to others, clients' sockets, TLS.

pub(crate) mod connector;
pub(crate) mod http_client;
pub(crate) mod socket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
