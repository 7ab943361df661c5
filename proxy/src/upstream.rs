//! App servers and the links to them: where they are, how they are dialled, which link is a client connection's home.
//!
//! ```text
//!  app server ──manifest──► hubs ──► pool per hub and app server ──► slots ──► LinkHandle: what shards write to
//! ```
//!
//! The task that keeps a slot's link open, and routes the frames that it brings down, is [`link`](crate::link)'s.

mod dial;
mod home;
mod http_client;
mod hubs;
mod link_handle;
mod manifest;
mod pool;
mod question;

pub(crate) use dial::{DialError, Dialled, UpstreamWebSocket, dial};
pub(crate) use http_client::Caller;
pub use hubs::MemoryDialler;
pub(crate) use hubs::{AppServer, AppServerId, Hub, HubIndex, Hubs, Reach};
pub(crate) use link_handle::{LinkHandle, LinkId};
pub(crate) use manifest::{ReadManifestError, read_manifest};
pub(crate) use pool::{Home, Pool};
pub(crate) use question::Questioner;
pub use trunkline_link::MemoryLink;
