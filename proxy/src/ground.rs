//! Tools, settings and the environment of a node. No module here depends on a client connection.
//!
//! Modules, lowest first; a module never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | `clock` | the system clock as Unix time |
//! | `bounded` | permits, budgets and tables with limits, for general use |
//! | `condition` | states that keep users from being served: catalogue and registry |
//! | `metrics` | counters and histograms of each shard |
//! | `telemetry` | spans of this node: sampling, open spans, export queue |
//! | `net` | addresses, outgoing connections, client sockets, TLS |
//! | `auth` | keys and policies of access tokens, users, and the admin token, as plain values |
//! | `routing` | rules of the operator: groups, routes, mirrors, methods |
//! | `config` | settings of a node, validated |
//! | `limits` | connection permits, throttles and pending negotiations per address |

pub(crate) mod auth;
pub(crate) mod bounded;
pub(crate) mod clock;
pub(crate) mod condition;
pub(crate) mod config;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod net;
pub(crate) mod routing;
#[cfg_attr(
    not(any(feature = "otlp", test)),
    expect(dead_code, reason = "there are spans only where something can export them")
)]
pub(crate) mod telemetry;
