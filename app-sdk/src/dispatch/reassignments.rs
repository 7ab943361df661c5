//! Reassignments of connections to other app servers: started by a proxy, completed when the connection has no
//! running calls.

use std::sync::Arc;

use super::connection_ends::ConnectionEnds;
use super::result_routing::ResultRouter;
use crate::connection::Connection;
use crate::hub_core::{HubCore, NoResultReason};

pub(crate) struct Reassignments {
    core: Arc<HubCore>,
    ends: Arc<ConnectionEnds>,
    results: Arc<ResultRouter>,
}

impl Reassignments {
    pub(super) fn new(core: Arc<HubCore>, ends: Arc<ConnectionEnds>, results: Arc<ResultRouter>) -> Self {
        Self { core, ends, results }
    }

    /// Begins to reassign a connection. Its calls finish first.
    pub(super) fn begin(&self, connection: &Arc<Connection>) {
        if self.core.begin_reassignment(connection) {
            self.ends.start(connection);
        }
    }

    /// Begins to reassign a connection to a less loaded app server, if it is idle. Otherwise it stays.
    pub(super) fn begin_idle(&self, connection: &Arc<Connection>) {
        if self.core.begin_idle_reassignment(connection) {
            self.ends.start(connection);
        }
    }

    /// Hands a connection over with the items from the app.
    pub(super) async fn give_away(&self, connection: &Arc<Connection>, items: Option<String>) {
        // Not during a move: the node that has the connection then is not aware of the reassignment yet.
        let permit = connection.home().pass().await;
        connection.inbox().reassignment.set_elsewhere();
        self.core.reassigned.insert(connection.shared_id());
        if !self.core.give_away(connection, permit.node(), items) {
            return;
        }
        self.results.end_waits(connection, NoResultReason::Leaving);
        self.ends.abandon_calls(connection);
    }

    /// Fails everything that waits for clients in reassignment, because the time limit of their calls has passed.
    /// Returns whether there was anything.
    pub(crate) fn give_up_waits(&self) -> bool {
        self.results.give_up_waits()
    }

    /// Advances all reassignments, because waits of other app servers end only by timeout.
    pub(crate) fn advance(&self) {
        for connection in self.core.connections.all() {
            if self.core.advance_reassignment(&connection) {
                self.ends.start(&connection);
            }
        }
    }

    /// Counts all connections, and those in reassignment. A service waits for its clients' calls itself.
    pub(crate) fn count(&self) -> (usize, usize) {
        let is_moving = |connection: &Arc<Connection>| {
            let is_of_service = connection.node().is_of_service();
            let inbox = connection.inbox();
            inbox.reassignment.has_begun() || (is_of_service && inbox.has_calls())
        };
        let all = self.core.connections.all();
        (all.len(), all.iter().filter(|connection| is_moving(connection)).count())
    }
}
