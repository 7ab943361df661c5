//! Server-side closing of connections.

use bytestring::ByteString;
use futures_util::future::join_all;
use trunkline_protocol::service::{CloseWithAck, ServiceMessage};

use super::question::{all_nodes, is_anywhere, is_done_everywhere, query_all};
use super::receivers::{Receivers, SendTarget};
use crate::error::AskError;
use crate::hub_core::HubCore;

const ORDERS_AT_ONCE: usize = 64;

/// Connections that one frame can close.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CloseOrder {
    All { except: Vec<ByteString> },
    Connection(ByteString),
    User(ByteString),
    Group { group: ByteString, except: Vec<ByteString> },
}

impl Receivers {
    /// Closes the connections of these receivers, and waits until their proxies have closed them. Returns whether
    /// there were any.
    ///
    /// Each client receives the reason (if not empty) in its close message and does not reconnect automatically.
    /// Messages sent before arrive first. The close cause is `app_closed` for clients of this app server, `ordered` for
    /// others.
    ///
    /// ```no_run
    /// # async fn f(handle: trunkline::ServerHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// let clients = handle.hub("chat")?.clients();
    /// let was_there = clients.user("mallory").close("banned").await?;
    /// clients.group("kitchen").close("closed for today").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If a group name is empty, the reason is too large, or a proxy did not reply within 10 s. Some of the
    /// connections may then still be open.
    pub async fn close(&self, reason: &str) -> Result<bool, AskError> {
        self.check()?;
        let reason = (!reason.is_empty()).then(|| ByteString::from(reason));
        let (mut is_found, mut failed) = (false, None);
        for orders in orders(&self.to, &self.core).chunks(ORDERS_AT_ONCE) {
            let done = join_all(orders.iter().map(|order| order.carry_out(&self.core, reason.as_ref())));
            for outcome in done.await {
                match outcome {
                    Ok(found) => is_found |= found,
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(is_found), Err)
    }
}

fn orders(to: &SendTarget, core: &HubCore) -> Vec<CloseOrder> {
    match to.clone() {
        SendTarget::All { except } => vec![CloseOrder::All { except }],
        SendTarget::Caller(caller) if core.connections.contains(&caller) => {
            vec![CloseOrder::Connection(caller.shared_id())]
        }
        SendTarget::Caller(_) => Vec::new(),
        SendTarget::Connections(ids) => ids.into_iter().map(CloseOrder::Connection).collect(),
        SendTarget::Group { group, except } => vec![CloseOrder::Group { group, except }],
        SendTarget::Groups(groups) => {
            groups.into_iter().map(|group| CloseOrder::Group { group, except: Vec::new() }).collect()
        }
        SendTarget::User(user) => vec![CloseOrder::User(user)],
        SendTarget::Users(users) => users.into_iter().map(CloseOrder::User).collect(),
    }
}

impl CloseOrder {
    async fn carry_out(&self, core: &HubCore, reason: Option<&ByteString>) -> Result<bool, AskError> {
        let message = |ack_id| self.message(ack_id, reason.cloned());
        let Self::Connection(id) = self else {
            return is_done_everywhere(query_all(core, &all_nodes(core)?, message).await?);
        };
        // At most one proxy has the connection.
        match core.connections.get(id) {
            Some(known) => is_anywhere(query_all(core, &[known.node()], message).await?),
            None => is_anywhere(query_all(core, &all_nodes(core)?, message).await?),
        }
    }

    fn message(&self, ack_id: i64, reason: Option<ByteString>) -> ServiceMessage {
        let close = |subject: &ByteString, excluded: &[ByteString]| {
            let excluded = excluded.to_vec();
            CloseWithAck { subject: subject.clone(), reason, ack_id, excluded }
        };
        match self {
            Self::All { except } => ServiceMessage::CloseConnectionsWithAck(close(&ByteString::new(), except)),
            Self::Connection(id) => ServiceMessage::CloseConnectionWithAck(close(id, &[])),
            Self::User(user) => ServiceMessage::CloseUserConnectionsWithAck(close(user, &[])),
            Self::Group { group, except } => ServiceMessage::CloseGroupConnectionsWithAck(close(group, except)),
        }
    }
}
