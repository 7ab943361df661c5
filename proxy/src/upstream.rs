//! Links to app servers: where they are, how they are dialled, which one a new client connection is given.
//!
//! ```text
//!  upstream ──manifest──► hubs ──► pool per hub and app server ──► links, each dialled for ever
//! ```
//!
//! What a link brings down is not read here: see [`downlink`](crate::link).

mod caller;
mod dial;
mod handle;
mod home;
mod hubs;
mod manifest;
mod pool;
mod question;
mod socket;

pub(crate) use caller::Caller;
pub(crate) use dial::{DialError, Dialled, dial};
pub(crate) use handle::{LinkHandle, LinkId, Outgoing};
pub use hubs::MemoryDialler;
pub(crate) use hubs::{AppServer, AppServerId, Hub, HubIndex, Hubs, Reach};
pub(crate) use manifest::{ReadManifestError, read_manifest};
pub(crate) use pool::{Home, Pool};
pub(crate) use question::Questioner;
pub use socket::MemoryLink;
pub(crate) use socket::{LinkReader, LinkSocket, LinkSocketError, LinkWriter};
