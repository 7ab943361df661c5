//! One client of a raw endpoint: a connection with one call, the handler, which reads the client's messages as its
//! upload.
//!
//! ```text
//!  its proxy stops reading, and asks ──► upload is read ──► None ──► the handler returns
//!                                                 waiting sends ──► queued ──► handed over with its items
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytestring::ByteString;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{HubProtocol, Invocation};

use super::raw_message::RawMessage;
use crate::call::{ITEMS_MAX_BYTES, encode_items};
use crate::connection::{
    CallKind, CallScope, Concurrency, Connection, ConnectionClose, IncomingCall, ReplyKind, StartWorker, UploadEnd,
    UploadEvent,
};
use crate::context::upload_stream::UploadReader;
use crate::error::HubError;
use crate::hub_core::HubCore;
use crate::sync::lock;

/// ID of the call that runs the handler, and of its upload.
pub(crate) const HANDLER_CALL: &str = "handler";

pub(crate) struct RawClient {
    pub(super) reader: UploadReader,
    /// State for a reassignment; `None` if the endpoint's connections cannot move.
    pub(super) reassignment: Option<Box<RawReassignment>>,
    /// Runtime of the connection's worker. A sender may close the connection from any thread.
    runtime: Handle,
}

impl RawClient {
    /// Begins the call that runs the handler of a connection.
    pub(crate) fn begin_call(
        core: &Arc<HubCore>,
        connection: &Arc<Connection>,
        workers: Arc<dyn StartWorker>,
        is_movable: bool,
    ) -> Arc<Self> {
        let id = ByteString::from_static(HANDLER_CALL);
        let kind = CallKind::Method(Concurrency::Background);
        let scope = CallScope::new(connection, workers, kind, Some(id.clone()), None);
        let (invocation_id, stream_ids) = (Some(id.clone()), vec![id.clone()]);
        let invocation = Invocation { invocation_id, stream_ids, ..Invocation::default() };
        let (call, reply_kind) = (Arc::clone(&scope), ReplyKind::Result);
        let call = IncomingCall { call, invocation, stream_count: 1, reply_kind, bytes: 0 };
        // The only call of its connection starts immediately.
        drop(connection.inbox().admit(call, &core.limits));
        let reassignment = is_movable.then(Box::default);
        let reader = UploadReader { scope, core: Arc::clone(core), id };
        Arc::new(Self { reader, reassignment, runtime: Handle::current() })
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.reader.scope.connection
    }

    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<RawMessage>> {
        let event = ready!(self.reader.poll_event(context));
        if let (UploadEvent::End(UploadEnd::Leaving), Some(reassignment)) = (&event, &self.reassignment) {
            reassignment.has_read_all.store(true, Ordering::Relaxed);
        }
        Poll::Ready(match event {
            UploadEvent::Item(item) => Some(RawMessage::from_item(&item)),
            UploadEvent::End(_) | UploadEvent::Closed => None,
        })
    }

    /// Closes the connection from this side, once, and drops its unread messages.
    pub(crate) fn close_client(&self, error: Option<ByteString>) {
        let cause = if error.is_some() { Cause::AppError } else { Cause::AppClosed };
        if self.reader.core.close_raw(self.connection(), ConnectionClose { cause, error }) {
            self.reader.close_upload().into_iter().for_each(Waker::wake);
            let _entered = self.runtime.enter();
            self.reader.scope.start_worker();
        }
    }

    /// Hands over a connection after its handler has returned, and after everything sent to its client. Returns
    /// `false` if this is not due: the handler has not read all input.
    pub(crate) async fn hand_over_if_due(&self) -> bool {
        let is_due = |reassignment: &&RawReassignment| reassignment.has_read_all.load(Ordering::Relaxed);
        let Some(reassignment) = self.reassignment.as_deref().filter(is_due) else { return false };
        let _way = reassignment.block().await;
        let (core, connection) = (&self.reader.core, self.connection());
        let items = lock(&reassignment.items).take();
        if core.give_away(connection, &connection.node(), items) && core.abandon_calls(connection) {
            self.reader.scope.start_worker();
        }
        true
    }

    /// Ends the call after its handler has returned.
    pub(crate) fn end_call(&self) {
        let UploadReader { scope, core, id } = &self.reader;
        let mut inbox = scope.connection.inbox();
        let (calls, flow) = inbox.calls();
        let readers = calls.forget(scope, std::slice::from_ref(id), flow);
        let needs_worker = inbox.release(&scope.state, &core.limits);
        drop(inbox);
        readers.into_iter().for_each(Waker::wake);
        if needs_worker {
            scope.start_worker();
        }
    }
}

/// Encoding of the items of raw connections, which have no hub protocol.
pub(super) const ITEMS_ENCODING: HubProtocol = HubProtocol::Json;

/// Reassignment of one raw connection.
#[derive(Debug, Default)]
pub(super) struct RawReassignment {
    /// Locked for reading by each send and for writing by the reassignment, which therefore comes after all sends.
    way: RwLock<()>,
    items: Mutex<Option<String>>,
    /// The handler has read all input, and was notified of the reassignment.
    has_read_all: AtomicBool,
}

impl RawReassignment {
    /// Delays a reassignment while a message is being queued.
    pub(super) async fn send(&self) -> RwLockReadGuard<'_, ()> {
        self.way.read().await
    }

    /// Waits until no message is being queued, and blocks further ones.
    async fn block(&self) -> RwLockWriteGuard<'_, ()> {
        self.way.write().await
    }

    pub(super) fn set_items(&self, items: &impl Serialize) -> Result<(), HubError> {
        let items = ITEMS_ENCODING.payload(items).map_err(|error| HubError::invalid_data(error.to_string()))?;
        let wrapped = encode_items(&items).ok_or_else(|| {
            let length = items.as_bytes().len();
            HubError::new(format!(
                "the items have {length} bytes, but a connection is handed over with at most \
                                   {ITEMS_MAX_BYTES}"
            ))
        })?;
        *lock(&self.items) = Some(wrapped);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_reassignment_waits_for_begun_sends_and_blocks_later_ones() {
        let reassignment = RawReassignment::default();
        let sending = reassignment.send().await;
        let mut blocking = Box::pin(reassignment.block());
        assert!((&mut blocking).now_or_never().is_none());
        let mut late = Box::pin(reassignment.send());
        assert!((&mut late).now_or_never().is_none());
        drop(sending);
        let blocked = (&mut blocking).now_or_never().expect("nothing is being sent");
        assert!((&mut late).now_or_never().is_none());
        drop(blocked);
        assert!(late.now_or_never().is_some());
    }
}
