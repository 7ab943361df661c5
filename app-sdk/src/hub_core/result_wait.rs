//! Wait of a method for a client result. Meanwhile other calls of its client may run, and the client is read although
//! much waits, because the result may stand behind that.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::HubCore;
use crate::connection::CallScope;

/// The inbox of the waiting method's client is overfull: a result may never get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InboxOverfull;

/// A wait; over when dropped.
pub(crate) struct ResultWait<'a> {
    core: &'a HubCore,
    scope: &'a CallScope,
}

impl<'a> ResultWait<'a> {
    /// Begins a wait. Returns also what fires when the inbox becomes overfull.
    pub(crate) fn begin(core: &'a HubCore, scope: &'a CallScope) -> Result<(Self, OwnedNotified), InboxOverfull> {
        let connection = scope.connection();
        let mut inbox = connection.inbox();
        if inbox.is_overfull(&core.limits) {
            return Err(InboxOverfull);
        }
        let (calls, flow) = inbox.calls();
        let overfull: Arc<Notify> = calls.begin_result_wait(flow);
        // Made under the lock: it hears of everything that comes after.
        let overfull = overfull.notified_owned();
        let needs_worker = inbox.release_slot(scope.state(), &core.limits);
        core.apply_flow_control(connection, &mut inbox);
        drop(inbox);
        if needs_worker {
            scope.start_worker();
        }
        Ok((Self { core, scope }, overfull))
    }
}

impl Drop for ResultWait<'_> {
    fn drop(&mut self) {
        let connection = self.scope.connection();
        let mut inbox = connection.inbox();
        let (calls, flow) = inbox.calls();
        calls.end_result_wait(flow);
        self.core.apply_flow_control(connection, &mut inbox);
    }
}
