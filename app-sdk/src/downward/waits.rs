//! A method that waits for the result of a client: meanwhile other calls of its own client may run, and its client
//! is read although much waits, because the answer may stand behind that.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::Downward;
use crate::connection::Scope;

/// So much waits that an answer may never get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hopeless;

/// A wait; over when dropped.
pub(crate) struct Wait<'a> {
    down: &'a Downward,
    scope: &'a Arc<Scope>,
}

impl Downward {
    /// A method begins to wait. Returns what fires when that has become hopeless.
    pub(crate) fn begin_wait<'a>(&'a self, scope: &'a Arc<Scope>) -> Result<(Wait<'a>, OwnedNotified), Hopeless> {
        let connection = scope.connection();
        let mut inbox = connection.inbox();
        if inbox.is_overfull(&self.limits) {
            return Err(Hopeless);
        }
        let (calls, flow) = inbox.calls();
        let hopeless: Arc<Notify> = calls.begin_result_wait(flow);
        // Made under the lock: it hears of everything that comes after.
        let hopeless = hopeless.notified_owned();
        let start = inbox.release_slot(scope, &self.limits);
        self.settle_flow(connection, &mut inbox);
        drop(inbox);
        self.start_if(start, connection);
        Ok((Wait { down: self, scope }, hopeless))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let connection = self.scope.connection();
        let mut inbox = connection.inbox();
        let (calls, flow) = inbox.calls();
        calls.end_result_wait(flow);
        self.down.settle_flow(connection, &mut inbox);
    }
}
