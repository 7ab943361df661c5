//! Sockets below HTTP: addresses, outgoing connections, client sockets, TLS.

pub(crate) mod address;
pub(crate) mod connector;
pub(crate) mod descriptor;
pub(crate) mod dial_gate;
pub(crate) mod endpoints;
pub(crate) mod http_client;
pub(crate) mod http_exchange;
pub(crate) mod line_stream;
pub(crate) mod node_name;
pub(crate) mod node_port;
pub(crate) mod resolver;
pub(crate) mod socket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
