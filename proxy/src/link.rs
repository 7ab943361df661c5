//! Links to app servers: where they are, how they are dialled, which one a new client connection is given.
//!
//! ```text
//!  upstream ──manifest──► hubs ──► pool per hub and app server ──► links, each dialled for ever
//! ```
//!
//! What a link brings down is not read here: see [`downlink`](crate::downlink).

mod dial;
mod handle;
mod home;
mod http_client;
mod hubs;
mod manifest;
mod pool;
mod question;
mod socket;

pub use dial::{DialError, Dialled, dial};
pub use handle::{LinkHandle, LinkId, Outgoing};
pub use http_client::Caller;
pub use hubs::{AppServer, AppServerId, Hub, HubIndex, Hubs, MemoryDialler, Reach};
pub use manifest::{ReadManifestError, read_manifest};
pub use pool::{Home, Pool};
pub use question::{AskError, Questioner};
pub use socket::{LinkReader, LinkSocket, LinkSocketError, LinkWriter, MemoryLink};
