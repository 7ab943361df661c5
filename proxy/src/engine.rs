//! The engine: the path of each message, and the life of each client connection.
//!
//! Modules, lowest first; a module never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | `transport` | client transports: WebSocket frames, server-sent events, HTTP transports |
//! | `upstream` | app servers: manifest, hubs, pools, dialling |
//! | `shard` | state of one thread: client connections, groups, delivery |
//! | `client` | service of one client connection |
//! | `link` | task of each link: routes frames from an app server to the shards |

pub(crate) mod client;
pub(crate) mod link;
pub(crate) mod shard;
pub(crate) mod transport;
pub(crate) mod upstream;
