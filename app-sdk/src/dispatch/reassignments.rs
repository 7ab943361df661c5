//! Reassignments of connections to other app servers: begun when a proxy asks, done when nothing of a connection runs.

use std::sync::Arc;

use super::connection_ends::ConnectionEnds;
use super::result_routing::ResultRouter;
use crate::connection::Connection;
use crate::hub_core::{ClientSilence, HubCore};

/// Reassignments of the connections of one hub.
pub(crate) struct Reassignments {
    core: Arc<HubCore>,
    ends: Arc<ConnectionEnds>,
    results: Arc<ResultRouter>,
}

impl Reassignments {
    pub(super) fn new(core: Arc<HubCore>, ends: Arc<ConnectionEnds>, results: Arc<ResultRouter>) -> Self {
        Self { core, ends, results }
    }

    /// Begins to reassign a connection: its calls end first.
    pub(super) fn begin(&self, connection: &Arc<Connection>) {
        if self.core.begin_reassignment(connection) {
            self.ends.start(connection);
        }
    }

    /// Begins to reassign a connection to an app server that has too few, if it is idle; else it stays.
    pub(super) fn begin_idle(&self, connection: &Arc<Connection>) {
        if self.core.begin_idle_reassignment(connection) {
            self.ends.start(connection);
        }
    }

    /// Gives a connection away, with the items that the app gives along.
    pub(super) async fn give_away(&self, connection: &Arc<Connection>, items: Option<String>) {
        // Not while it moves: the node that has it then knows of no reassignment yet.
        let passage = connection.home().pass().await;
        connection.inbox().reassignment.set_elsewhere();
        self.core.reassigned.insert(connection.shared_id());
        if !self.core.give_away(connection, passage.node(), items) {
            return;
        }
        self.results.end_waits(connection, ClientSilence::Leaving);
        self.ends.abandon_calls(connection);
    }

    /// Fails what waits for clients that are about to be reassigned, because the time for their calls is up. Returns
    /// whether anything did.
    pub(crate) fn give_up_waits(&self) -> bool {
        self.results.give_up_waits()
    }

    /// Advances all reassignments: what other app servers wait for ends by time alone.
    pub(crate) fn advance(&self) {
        for connection in self.core.connections.all() {
            if self.core.advance_reassignment(&connection) {
                self.ends.start(&connection);
            }
        }
    }

    /// Counts the connections that are here, and those of them that are about to be reassigned. A service waits for
    /// their calls by itself.
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
