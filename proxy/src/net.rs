//! Sockets below HTTP: connections to others, clients' sockets, TLS.

pub(crate) mod connector;
pub(crate) mod socket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
