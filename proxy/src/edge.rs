//! HTTP at the edge of a node: for clients, back ends and operators.
//!
//! Modules, lowest first; a module never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | `rest` | REST data plane: sends, queries and changes by requests of back ends |
//! | `frontend` | HTTP for clients: negotiate, connect, pass-through, owner hop |
//! | `observer` | snapshots of this node and the fleet, inspection of shards, taps, peers |
//! | `admin` | admin port: health, metrics, the observer page and its API |
//! | `otlp` | export of spans and metrics to an OpenTelemetry collector |

pub(crate) mod admin;
pub(crate) mod frontend;
pub(crate) mod observer;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
pub(crate) mod rest;
