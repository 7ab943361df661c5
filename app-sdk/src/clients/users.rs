//! Users of a hub.

use std::sync::Arc;
use std::time::SystemTime;

use bytestring::ByteString;
use trunkline_protocol::service::{AckStatus, Check, ServiceMessage};

use super::members::{ListedSet, Members, count};
use super::question::{Answer, Missing, all_nodes, failure, is_anywhere, query_limited};
use crate::brief_debug::brief_debug;
use crate::error::AskError;
use crate::hub_core::HubCore;

/// Users of a hub, on all proxies. Each query goes to all proxies. An [`Answer`] states its age and which proxies did
/// not reply.
///
/// ```no_run
/// # async fn f(handle: trunkline::ServerHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let users = handle.hub("chat")?.users();
/// if !users.is_online("ann").await? {
///     println!("ann is offline: send a mail");
/// }
/// let bob = users.online("bob").await?;
/// println!("bob is online: {}; proxies that did not answer: {:?}", *bob, bob.missing());
/// for connection in users.connections("bob").all().await?.iter() {
///     println!("bob is here: {}", connection.connection_id);
/// }
/// # Ok(()) }
/// ```
///
/// To be notified of changes instead, use [`Hub::on_user_online`](crate::Hub::on_user_online).
#[derive(Clone)]
pub struct Users {
    core: Arc<HubCore>,
}

impl Users {
    pub(crate) fn new(core: &Arc<HubCore>) -> Self {
        Self { core: Arc::clone(core) }
    }

    /// Whether a user has a connection, according to the proxies that replied. `true` is certain; `false` is certain
    /// only if [all replied](Answer::is_complete).
    ///
    /// # Errors
    /// If no proxy replied within 10 s, or too many queries are pending.
    pub async fn online(&self, user_id: impl AsRef<str>) -> Result<Answer<bool>, AskError> {
        let as_of = SystemTime::now();
        let nodes = all_nodes(&self.core)?;
        let replies = query_limited(&self.core, &nodes, check(user_id.as_ref())).await?;
        let (mut is_online, mut answered, mut missing, mut failed) = (false, 0, Missing::default(), None);
        for (node, reply) in nodes.iter().zip(replies) {
            match reply.map_err(AskError::from).and_then(|ack| match ack.status {
                AckStatus::Ok => Ok(true),
                AckStatus::NotFound => Ok(false),
                _ => Err(failure(ack)),
            }) {
                Ok(is_here) => {
                    is_online |= is_here;
                    answered += 1;
                }
                Err(error) => {
                    missing.add_node(node.name());
                    failed = Some(error);
                }
            }
        }
        Answer::of_any(is_online, as_of, (answered, missing), failed)
    }

    /// Whether a user has a connection. The result is always certain.
    ///
    /// # Errors
    /// If no proxy has the user and at least one did not reply within 10 s, or if too many queries are pending.
    pub async fn is_online(&self, user_id: impl AsRef<str>) -> Result<bool, AskError> {
        is_anywhere(query_limited(&self.core, &all_nodes(&self.core)?, check(user_id.as_ref())).await?)
    }

    /// Lists the connections of a user, page by page or [all](Members::all) together.
    pub fn connections(&self, user_id: impl AsRef<str>) -> Members {
        Members::new(&self.core, ListedSet::User(user_id.as_ref().into()))
    }

    /// Number of connections of a user, such as tabs or devices. The cost does not depend on the number.
    ///
    /// # Errors
    /// If no proxy replied, or too many queries are pending. [`Answer::missing`] lists proxies that did not reply.
    pub async fn count(&self, user_id: impl AsRef<str>) -> Result<Answer<u64>, AskError> {
        count(&self.core, &ListedSet::User(user_id.as_ref().into())).await
    }
}

fn check(user_id: &str) -> impl Fn(i64) -> ServiceMessage {
    let subject = ByteString::from(user_id);
    move |ack_id| ServiceMessage::CheckUserExistenceWithAck(Check { subject: subject.clone(), ack_id })
}

brief_debug!(Users, |it| "Users of {}", it.core.name());
