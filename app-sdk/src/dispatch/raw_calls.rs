//! Connections of a raw endpoint: its handler runs in place of methods, as one call in a task per connection.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;

use bytestring::ByteString;
use futures_util::FutureExt;
use tokio_util::task::TaskTracker;
use trunkline_process::LinePermit;

use super::connection_ends::ConnectionEnds;
use crate::connection::{Connection, StartWorker, UploadEnd, short};
use crate::error::HubError;
use crate::hub_core::HubCore;
use crate::raw::{HANDLER_CALL, RawClient, RawConnection, RawServe};
use crate::watchdog::{CodeId, watch};

pub(super) struct RawCalls {
    core: Arc<HubCore>,
    ends: Arc<ConnectionEnds>,
    serve: RawServe,
    pub(super) is_movable: bool,
    tasks: TaskTracker,
}

impl RawCalls {
    pub(super) fn new(
        core: Arc<HubCore>,
        ends: Arc<ConnectionEnds>,
        serve: RawServe,
        is_movable: bool,
        tasks: TaskTracker,
    ) -> Self {
        Self { core, ends, serve, is_movable, tasks }
    }

    /// Starts the handler of a connection.
    pub(super) fn start_handler(&self, connection: &Arc<Connection>, workers: Arc<dyn StartWorker>) {
        let client = RawClient::begin_call(&self.core, connection, workers, self.is_movable);
        self.tasks.spawn(run(Arc::clone(&self.core), Arc::clone(&self.serve), client));
    }

    /// Begins the reassignment of a connection. Its client's input has ended, which the handler reads next.
    pub(super) fn begin_reassignment(&self, connection: &Arc<Connection>) {
        let (needs_worker, call, readers) = {
            let mut inbox = connection.inbox();
            let needs_worker = inbox.begin_reassignment();
            let (calls, flow) = inbox.calls();
            (needs_worker, calls.active(HANDLER_CALL), calls.end_uploads(&UploadEnd::Leaving, flow))
        };
        call.into_iter().for_each(|call| call.cancel());
        readers.into_iter().for_each(Waker::wake);
        if needs_worker {
            self.ends.start(connection);
        }
    }
}

/// Runs the handler, and then closes the connection or hands it over.
async fn run(core: Arc<HubCore>, serve: RawServe, client: Arc<RawClient>) {
    let connection = RawConnection::new(Arc::clone(&client));
    // A panic affects only this connection.
    let serving = AssertUnwindSafe(async { serve(connection).await }).catch_unwind();
    let served = watch(&core.outbound, CodeId::for_name(core.name(), "handler"), pin!(serving)).await;
    let served = served.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic)));
    if served.is_err() || !client.hand_over_if_due().await {
        client.close_client(served.err().map(|error| {
            log_failure(&core, client.connection(), &error);
            ByteString::from(error.to_string())
        }));
    }
    client.end_call();
}

fn log_failure(core: &HubCore, connection: &Connection, error: &HubError) {
    let (hub, id) = (core.name(), short(connection.id()));
    if connection.cancellation().is_cancelled() {
        // Usually a send that came too late.
        tracing::debug!(hub, connection = id, ?error, "handler failed after its connection had ended");
    } else if let Some(LinePermit { left_out }) = core.outbound.failure_limit.take_line() {
        tracing::error!(hub, connection = id, ?error, left_out, "handler failed");
    } else {
        tracing::debug!(hub, connection = id, ?error, "handler failed, like others a moment ago");
    }
}

#[cfg(test)]
mod tests;
