//! App servers and the links to them: addresses, dialling, and the choice of home links for client connections.
//!
//! ```text
//!  app server ──manifest──► hubs ──► pool per hub and app server ──► slots ──► LinkHandle, to which shards write
//! ```
//!
//! The task of each link is in [`link`](crate::engine::link).

mod app_server;
mod asked_methods;
mod caller;
mod capability;
mod hub;
mod hub_identity;
mod hub_registry;
mod link_dial;
mod link_handle;
mod link_waiter;
mod new_server;
mod number;
mod pool;
mod route_choice;
mod server_group;

use std::fmt;

use trunkline_protocol::service::ServiceMessage;

use crate::ground::auth::Signer;

#[cfg(test)]
pub(crate) use app_server::APP_SERVERS_MAX;
pub(crate) use app_server::{AppServer, AppTarget};
pub use app_server::{BackEndState, MemoryDialler};
pub(crate) use caller::{Caller, RequestError};
pub use hub::Hub;
pub(crate) use hub_identity::{HubIdentity, HubOrigin, decode_path};
#[cfg(test)]
pub(crate) use hub_registry::DIAL_IN_HUBS_MAX;
pub(crate) use hub_registry::HubRegistry;
pub(crate) use link_dial::{
    DialError, Dialled, IncomingLink, LinkUpgradeError, UpstreamWebSocket, dial, into_websocket, link_request,
    open_link,
};
pub(crate) use link_handle::{DialledIn, LinkHandle};
pub(crate) use new_server::{LinkCounts, NewServer, NewServerRound};
pub(crate) use number::{AppServerId, HubIndex, LinkId};
pub(crate) use pool::{HomeLink, Pool};
pub(crate) use route_choice::{RouteChoice, facts_of};
pub(crate) use server_group::{GroupTerms, ServerGroup, ServerGroups};
pub use trunkline_link::MemoryLink;

/// Sender of commands that receives their answers: the app server at the other end of a link, or another node.
pub(crate) trait ReplyTo: fmt::Debug + Send + Sync {
    fn hub(&self) -> HubIndex;

    /// App server of the sender; [`AppServerId::OTHER_NODE`] for another node.
    fn app(&self) -> AppServerId;

    /// Dial-in link of the commands; `None` for any other sender.
    fn dial_in_link(&self) -> Option<LinkId> {
        None
    }

    /// Signer of the sender's token; `None` without a token.
    fn signer(&self) -> Option<&Signer> {
        None
    }

    /// Sends an answer. Never waits.
    fn answer(&self, message: &ServiceMessage);
}
