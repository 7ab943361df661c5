//! A call that runs, until it is answered.
//!
//! ```text
//!  method ──value, error──────────────► forgotten ──► completion queued ──► over: the next may start
//!     └───stream──► item, item, … ──────────▲
//!                    └─ cancelled: the stream is dropped
//! ```
//!
//! It is forgotten before its completion is queued, because the client may use its id anew when it reads that; and it
//! is over only after that, so that calls which run one after the other are answered in that order.

use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytestring::ByteString;
use futures_util::future::CatchUnwind;
use futures_util::{FutureExt, StreamExt};
use trunkline_protocol::hub::{Outcome, Payload};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;

use super::{HubAtWork, panicked};
use crate::connection::{Connection, Scope, Wanted, short};
use crate::encode;
use crate::error::HubError;
use crate::handler::{Answering, Items, Kind, Method, Reply};
use crate::metrics::{Counted, Outcome as Counting};
use crate::text;

/// What a result has around it at most: ids, target and headers of frames, which are the client's and thus small.
const ENVELOPE_MAX_BYTES: usize = 256 * 1024;

/// A call that runs; over when dropped.
pub(super) struct Running {
    hub: Arc<HubAtWork>,
    scope: Arc<Scope>,
    target: ByteString,
    /// What it calls, if there is such a method.
    method: Option<Arc<Method>>,
    since: Instant,
    stream_ids: Vec<ByteString>,
    wanted: Wanted,
    is_forgotten: bool,
    _counted: Counted,
}

/// A call that is answered with a stream.
pub(super) struct Streaming {
    running: Running,
    items: Items,
}

impl Running {
    pub(super) fn new(
        hub: &Arc<HubAtWork>,
        scope: Arc<Scope>,
        target: ByteString,
        method: Option<Arc<Method>>,
        stream_ids: Vec<ByteString>,
        wanted: Wanted,
    ) -> Self {
        let (_counted, since) = (Counted::new(&hub.down.metrics.running), Instant::now());
        Self { hub: Arc::clone(hub), scope, target, method, since, stream_ids, wanted, is_forgotten: false, _counted }
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Waits for the method, and answers. A call for a stream that is cancelled is dropped as it is.
    pub(super) async fn wait(self, answering: CatchUnwind<AssertUnwindSafe<Answering>>) {
        let ran = match self.wanted {
            Wanted::Result => Some(answering.await),
            Wanted::Stream => {
                let cancellation = self.scope.cancellation().clone();
                cancellation.run_until_cancelled_owned(answering).await
            }
        };
        match ran {
            None => {
                self.count(Counting::Cancelled);
                self.complete(Outcome::Void).await;
            }
            Some(ran) => {
                if let Some(stream) = self.answer(ran.unwrap_or_else(|panic| Err(panicked(&*panic)))).await {
                    stream.send().await;
                }
            }
        }
    }

    /// The method is done: answers, or returns the stream that is to be sent.
    pub(super) async fn answer(self, ran: Result<Reply, HubError>) -> Option<Streaming> {
        match (ran.map(|Reply(kind)| kind), self.wanted) {
            (Ok(Kind::Stream(items)), Wanted::Stream) => return Some(Streaming { running: self, items }),
            (Ok(Kind::Value(payload)), Wanted::Result) => self.value(payload).await,
            (Ok(_), _) => {
                self.count(Counting::Failed);
                let text = text::no_stream(&self.target);
                self.complete(Outcome::Error(text.into())).await;
            }
            (Err(error), _) => self.failed(&error).await,
        }
        None
    }

    /// It could not be bound to a method and its parameters.
    pub(super) async fn unbound(self, text: String) {
        self.count(Counting::Unbound);
        let (hub, connection) = (&*self.hub.down.hub, short(self.connection().id()));
        tracing::debug!(hub, connection, text, "call can't be bound");
        self.complete(Outcome::Error(text.into())).await;
    }

    /// The method failed.
    pub(super) async fn failed(self, error: &HubError) {
        self.count(Counting::Failed);
        self.hub.log(self.connection(), &self.target, error);
        let text = text::invoking_failed(&self.target, error, self.hub.settings.detailed_errors);
        self.complete(Outcome::Error(text.into())).await;
    }

    async fn value(self, payload: Payload) {
        if let Err(error) = check_size(&payload) {
            return self.failed(&error).await;
        }
        self.count(Counting::Ok);
        self.complete(Outcome::Value(payload)).await;
    }

    async fn complete(mut self, outcome: Outcome) {
        self.forget();
        let Some(id) = self.scope.invocation_id() else { return };
        let (down, connection) = (&self.hub.down, self.connection());
        if down.roster.holds(connection) {
            down.complete(connection, encode::completion(connection.protocol(), id.clone(), outcome)).await;
        }
    }

    async fn send_items(&self, mut items: Items) -> Result<(), HubError> {
        let (down, connection) = (&self.hub.down, self.connection());
        let id = self.scope.invocation_id().cloned().unwrap_or_default();
        while let Some(item) = items.next().await {
            let item = item?;
            check_size(&item)?;
            if !down.send_item(connection, encode::item(connection.protocol(), id.clone(), item)).await {
                break;
            }
            down.metrics.items_down.inc();
        }
        Ok(())
    }

    fn forget(&mut self) {
        if mem::replace(&mut self.is_forgotten, true) {
            return;
        }
        let connection = self.connection();
        let waiting = {
            let mut inbox = connection.inbox();
            let (calls, flow) = inbox.calls();
            let waiting = calls.forget(&self.scope, &self.stream_ids, flow);
            self.hub.down.settle_flow(connection, &mut inbox);
            waiting
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn count(&self, outcome: Counting) {
        self.hub.count_call(self.method.as_deref(), outcome, self.since.elapsed());
    }

    fn connection(&self) -> &Arc<Connection> {
        self.scope.connection()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.forget();
        let (down, connection) = (&self.hub.down, self.connection());
        let start = connection.inbox().release(&self.scope, &down.limits);
        down.start_if(start, connection);
    }
}

impl Streaming {
    /// Sends the items as the link takes them, until they end, fail or are cancelled.
    pub(super) async fn send(self) {
        let Self { running, items } = self;
        let _counted = Counted::new(&running.hub.down.metrics.streams);
        let cancellation = running.scope.cancellation().clone();
        let sending = AssertUnwindSafe(running.send_items(items)).catch_unwind();
        let (sent, good) = match cancellation.run_until_cancelled(sending).await {
            None => (Ok(()), Counting::Cancelled),
            Some(sent) => (sent.unwrap_or_else(|panic| Err(panicked(&*panic))), Counting::Ok),
        };
        match sent {
            Ok(()) => {
                running.count(good);
                running.complete(Outcome::Void).await;
            }
            Err(error) => {
                running.count(Counting::Failed);
                running.hub.log(running.connection(), &running.target, &error);
                let text = text::streaming_failed(&error, running.hub.settings.detailed_errors);
                running.complete(Outcome::Error(text.into())).await;
            }
        }
    }
}

fn check_size(payload: &Payload) -> Result<(), HubError> {
    if payload.as_bytes().len() + ENVELOPE_MAX_BYTES > LINK_FRAME_MAX_BYTES {
        return Err(HubError::invalid_data("The result is too large for a link."));
    }
    Ok(())
}
