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
mod caller;
mod capability;
mod home_choice;
mod hub;
mod hub_identity;
mod hub_naming;
pub(crate) mod hub_path;
mod hub_registry;
mod link_dial;
mod link_handle;
mod link_waiter;
mod new_server;
mod pool;
mod route_choice;
mod server_group;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::upgrade::OnUpgrade;
use trunkline_protocol::service::ServiceMessage;

use crate::auth::{Signer, TokenSigner};
use crate::limits::LinkPermit;

pub(crate) use app_server::{AppServer, AppTarget};
pub use app_server::{BackEndState, MemoryDialler};
#[cfg(test)]
pub(crate) use app_server_register::APP_SERVERS_MAX;
pub(crate) use caller::{Caller, RequestError};
pub use hub::Hub;
pub(crate) use hub_identity::{HubIdentity, HubOrigin};
#[cfg(test)]
pub(crate) use hub_registry::DIAL_IN_HUBS_MAX;
pub(crate) use hub_registry::HubRegistry;
pub(crate) use link_dial::{DialError, Dialled, UpstreamWebSocket, dial, into_websocket};
pub(crate) use link_handle::{DialledIn, LinkHandle};
pub(crate) use new_server::{LinkCounts, NewServer, NewServerRound};
pub(crate) use pool::{HomeLink, Pool};
pub(crate) use route_choice::{RouteChoice, facts_of};
pub(crate) use server_group::{GroupTerms, ServerGroup, ServerGroups};
pub use trunkline_link::MemoryLink;

#[derive(Debug)]
pub(crate) struct IncomingLink {
    pub upgrade: OnUpgrade,
    pub hub: Arc<Hub>,
    /// Id of the app server, shared by all its links.
    pub instance: String,
    /// Address of the app server; `None` if another node carries the link.
    pub from: Option<IpAddr>,
    /// Host that the app server dialled.
    pub endpoint: String,
    pub signer: TokenSigner,
    /// Whether another node carries the link.
    pub is_carried: bool,
    /// Reason to refuse the handshake, if already known.
    pub refusal: Option<String>,
    /// Permit of the link, held until its socket is closed.
    pub permit: Arc<LinkPermit>,
}

/// Index of a hub in tables, reused long after the hub was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HubIndex(u32);

/// Number of an app server instance, never reused in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AppServerId(u32);

/// Number of a link for the lifetime of its session, never reused in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(u64);

static NEXT_LINK: AtomicU64 = AtomicU64::new(1);

impl LinkId {
    fn next() -> Self {
        Self(NEXT_LINK.fetch_add(1, Ordering::Relaxed))
    }
}

impl HubIndex {
    #[must_use]
    pub(crate) fn get(self) -> usize {
        self.0 as usize
    }
}

impl From<u32> for HubIndex {
    fn from(index: u32) -> Self {
        Self(index)
    }
}

impl Default for AppServerId {
    fn default() -> Self {
        Self::NONE
    }
}

impl AppServerId {
    /// No app server: for a client without a home.
    pub(crate) const NONE: Self = Self(u32::MAX);
    /// Another node as the sender. Never a client's home.
    pub(crate) const OTHER_NODE: Self = Self(u32::MAX - 1);
}

impl From<u32> for AppServerId {
    fn from(id: u32) -> Self {
        Self(id)
    }
}

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
