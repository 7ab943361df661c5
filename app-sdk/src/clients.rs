//! Clients of a hub: sends, client results and groups.

mod client;
mod close_order;
mod groups;
mod history;
pub mod interface;
mod members;
mod question;
mod receivers;
mod sent;
mod users;

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use bytestring::ByteString;

use crate::brief_debug::brief_debug;
use crate::connection::CallScope;
use crate::error::AskError;
use crate::hub_core::HubCore;

pub use client::{Client, ClientAnswer};
pub use groups::Groups;
pub use history::History;
pub use members::{Member, Members};
pub use question::Answer;
pub use receivers::Receivers;
use receivers::SendTarget;
pub use sent::{NotAcknowledged, NotAcknowledgedReason, Sent};
pub use users::Users;

/// Clients of a hub, on all proxies: select [receivers](Receivers), then send.
///
/// ```no_run
/// # async fn f(handle: trunkline::ServerHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let clients = handle.hub("chat")?.clients();
/// clients.all().send("Notice", ("back in five minutes",)).await?;
/// clients.user("ann").send("Notice", ("your order is ready",)).await?;
/// clients.group_except("kitchen", ["id-of-the-cook"]).send("Order", (17,)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Clients {
    core: Arc<HubCore>,
    /// Call by a client during which this was created, if any.
    scope: Option<Arc<CallScope>>,
}

/// Clients of a hub as seen by one of them: everything in [`Clients`], plus [`caller`](Self::caller),
/// [`others`](Self::others) and [`others_in_group`](Self::others_in_group).
#[derive(Clone)]
pub struct CallerClients {
    clients: Clients,
    scope: Arc<CallScope>,
}

impl Clients {
    pub(crate) fn new(core: &Arc<HubCore>) -> Self {
        Self { core: Arc::clone(core), scope: None }
    }

    /// All clients of the hub.
    pub fn all(&self) -> Receivers {
        self.to(SendTarget::All { except: Vec::new() })
    }

    /// All clients except these connection IDs.
    pub fn all_except<T: AsRef<str>>(&self, connection_ids: impl IntoIterator<Item = T>) -> Receivers {
        self.to(SendTarget::All { except: texts(connection_ids) })
    }

    /// One connection, which can also be [invoked for a result](Client::invoke).
    pub fn client(&self, connection_id: impl AsRef<str>) -> Client {
        Client::new(self.clients([connection_id]), self.scope.clone())
    }

    /// Several connections. Duplicate IDs receive the message once.
    pub fn clients<T: AsRef<str>>(&self, connection_ids: impl IntoIterator<Item = T>) -> Receivers {
        self.to(SendTarget::Connections(distinct(connection_ids)))
    }

    /// Members of a group.
    pub fn group(&self, group: impl AsRef<str>) -> Receivers {
        self.to(SendTarget::Group { group: group.as_ref().into(), except: Vec::new() })
    }

    /// Members of a group except these connection IDs.
    pub fn group_except<T: AsRef<str>>(
        &self,
        group: impl AsRef<str>,
        connection_ids: impl IntoIterator<Item = T>,
    ) -> Receivers {
        self.to(SendTarget::Group { group: group.as_ref().into(), except: texts(connection_ids) })
    }

    /// Members of several groups. A member of two groups receives the message twice.
    pub fn groups<T: AsRef<str>>(&self, groups: impl IntoIterator<Item = T>) -> Receivers {
        self.to(SendTarget::Groups(texts(groups)))
    }

    /// All connections of a user.
    pub fn user(&self, user_id: impl AsRef<str>) -> Receivers {
        self.to(SendTarget::User(user_id.as_ref().into()))
    }

    /// All connections of several users. Duplicate names receive the message once.
    pub fn users<T: AsRef<str>>(&self, user_ids: impl IntoIterator<Item = T>) -> Receivers {
        self.to(SendTarget::Users(distinct(user_ids)))
    }

    /// Whether a user has a connection, at any proxy.
    ///
    /// ```no_run
    /// # async fn f(clients: trunkline::Clients) -> Result<(), trunkline::AskError> {
    /// if !clients.user_exists("ann").await? {
    ///     println!("ann is offline: send a mail");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`Users::is_online`].
    pub async fn user_exists(&self, user_id: impl AsRef<str>) -> Result<bool, AskError> {
        Users::new(&self.core).is_online(user_id).await
    }

    /// Records of the hub's groups and users.
    #[must_use]
    pub fn history(&self) -> History {
        History::new(&self.core)
    }

    fn to(&self, to: SendTarget) -> Receivers {
        Receivers { core: Arc::clone(&self.core), to, id: None }
    }
}

impl CallerClients {
    pub(crate) fn new(core: &Arc<HubCore>, scope: &Arc<CallScope>) -> Self {
        let clients = Clients { core: Arc::clone(core), scope: Some(Arc::clone(scope)) };
        Self { clients, scope: Arc::clone(scope) }
    }

    /// The calling client, which can also be [invoked for a result](Client::invoke).
    pub fn caller(&self) -> Client {
        let caller = self.to(SendTarget::Caller(Arc::clone(&self.scope.connection)));
        Client::new(caller, Some(Arc::clone(&self.scope)))
    }

    /// All clients except the caller.
    pub fn others(&self) -> Receivers {
        self.to(SendTarget::All { except: vec![self.scope.connection.shared_id()] })
    }

    /// Members of a group except the caller.
    pub fn others_in_group(&self, group: impl AsRef<str>) -> Receivers {
        self.to(SendTarget::Group { group: group.as_ref().into(), except: vec![self.scope.connection.shared_id()] })
    }
}

impl Deref for CallerClients {
    type Target = Clients;

    fn deref(&self) -> &Clients {
        &self.clients
    }
}

brief_debug!(Clients, |it| "Clients of {}", it.core.name());

brief_debug!(CallerClients, |it| "{:?} seen by {}", it.clients, it.scope.connection.id());

fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<ByteString> {
    texts.into_iter().map(|text| text.as_ref().into()).collect()
}

fn distinct<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Vec<ByteString> {
    let mut seen = HashSet::new();
    texts(names).into_iter().filter(|name| seen.insert(name.clone())).collect()
}
