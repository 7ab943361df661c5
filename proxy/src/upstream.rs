//! App servers and the links to them: addresses, dialling, and the choice of home links for client connections.
//!
//! ```text
//!  app server ──manifest──► hubs ──► pool per hub and app server ──► slots ──► LinkHandle, to which shards write
//! ```
//!
//! The task of each link is in [`link`](crate::link).

mod app_server;
mod app_server_register;
mod asked_methods;
mod authorizer;
mod caller;
mod capability;
mod home_choice;
mod hub;
mod hub_identity;
mod hub_naming;
pub(crate) mod hub_path;
mod hub_registry;
mod incoming_link;
mod link_dial;
mod link_handle;
mod link_waiter;
mod manifest;
mod new_server;
mod number;
mod pool;
mod refusal_source;
mod reply_to;
mod restore_query;
mod route_choice;
mod server_group;
mod share_plan;

pub use app_server::MemoryDialler;
pub(crate) use app_server::{AppServer, AppTarget};
#[cfg(test)]
pub(crate) use app_server_register::APP_SERVERS_MAX;
pub(crate) use authorizer::Authorizer;
pub(crate) use caller::Caller;
pub use hub::Hub;
pub(crate) use hub_identity::{HubIdentity, HubOrigin};
#[cfg(test)]
pub(crate) use hub_registry::DIAL_IN_HUBS_MAX;
pub(crate) use hub_registry::HubRegistry;
pub(crate) use incoming_link::IncomingLink;
pub(crate) use link_dial::{DialError, Dialled, UpstreamWebSocket, dial, into_websocket};
pub(crate) use link_handle::{DialledIn, LinkHandle};
pub(crate) use manifest::{ReadManifestError, read_manifest};
pub(crate) use new_server::{LinkCounts, NewServer, NewServerRound};
pub(crate) use number::{AppServerId, HubIndex, LinkId};
pub(crate) use pool::{HomeLink, Pool, PoolTerms};
pub(crate) use refusal_source::{MIDDLEWARE_HINT, RefusalSource};
pub(crate) use reply_to::ReplyTo;
pub(crate) use restore_query::RestoreQueries;
pub(crate) use route_choice::{RouteChoice, facts_of};
pub(crate) use server_group::{GroupTerms, ServerGroup, ServerGroups};
pub(crate) use share_plan::{ShareLoad, ShareMove, SharePlan};
pub use trunkline_link::MemoryLink;
