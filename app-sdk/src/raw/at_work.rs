//! One raw endpoint at work: connections come and go, and each has a task that runs the handler.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{CloseConnection, ConnectionData, OpenConnection, RawKind};

use super::handler::Serving;
use super::inbox::RawInbox;
use super::{RawConnection, RawMessage};
use crate::connection::{End, LinkId, Opening, short};
use crate::dispatch::panicked;
use crate::downward::{Downward, ID_IN_USE};
use crate::endpoint::Endpoint;
use crate::node::Node;
use crate::sync::lock;

/// What serves a connection.
pub(crate) type Serve = dyn Fn(RawConnection) -> Serving + Send + Sync;

/// One raw connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) opening: Opening,
    pub(super) node: Arc<Node>,
    /// Fires when the connection ends.
    pub(super) cancellation: CancellationToken,
    home: LinkId,
    inbox: Mutex<RawInbox>,
}

/// A raw endpoint whose handler can be run.
pub(crate) struct RawAtWork {
    pub(super) down: Arc<Downward>,
    serve: Arc<Serve>,
    /// Whoever takes one out is the one who ends it.
    lines: Mutex<HashMap<ByteString, Arc<Line>>>,
    tasks: TaskTracker,
    me: Weak<RawAtWork>,
}

impl RawAtWork {
    pub(crate) fn new(down: Arc<Downward>, serve: Arc<Serve>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { down, serve, lines: Mutex::default(), tasks, me: Weak::clone(me) })
    }

    /// Ends a connection from this side, once. What waits in its inbox is dropped.
    pub(super) fn close(&self, line: &Arc<Line>, error: Option<ByteString>) {
        let cause = if error.is_some() { Cause::AppError } else { Cause::AppClosed };
        let end = End { cause, error };
        if self.remove(line, &end) {
            self.down.end_at_proxy(&line.node, line.opening.shared_id(), cause, end.error);
            Self::ended(line, RawInbox::discard);
        }
    }

    pub(super) fn poll_next(&self, line: &Line, cx: &Context<'_>) -> Poll<Option<RawMessage>> {
        let mut inbox = lock(&line.inbox);
        let next = inbox.poll_next(cx);
        self.settle_flow(line, &mut inbox);
        next
    }

    /// The handler has let its connection go.
    pub(super) fn stop_reading(&self, line: &Line) {
        let mut inbox = lock(&line.inbox);
        inbox.discard();
        self.settle_flow(line, &mut inbox);
    }

    /// Runs the handler, and closes the connection when it is over.
    async fn run(self: Arc<Self>, line: Arc<Line>) {
        let connection = RawConnection::new(Arc::clone(&line), Arc::clone(&self));
        // A panic hurts nobody else.
        let serving = AssertUnwindSafe(async { (self.serve)(connection).await }).catch_unwind();
        let served = serving.await.unwrap_or_else(|panic| Err(panicked(&*panic)));
        let has_ended = line.cancellation.is_cancelled();
        let error = served.err().map(|error| {
            let (hub, connection) = (&*self.down.hub, short(line.opening.id()));
            if has_ended {
                // Most often a send that came too late.
                tracing::debug!(hub, connection, ?error, "handler failed after its connection had ended");
            } else {
                tracing::error!(hub, connection, ?error, "handler failed");
            }
            ByteString::from(error.to_string())
        });
        self.close(&line, error);
    }

    /// The client has gone; what it sent may still be received.
    fn left(&self, line: &Arc<Line>, end: &End) {
        if self.remove(line, end) {
            Self::ended(line, RawInbox::finish);
        }
    }

    fn ended(line: &Line, end: impl FnOnce(&mut RawInbox) -> Option<Waker>) {
        line.cancellation.cancel();
        let waiting = end(&mut lock(&line.inbox));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Called with the inbox under its lock, or a later wish could overtake an earlier one.
    fn settle_flow(&self, line: &Line, inbox: &mut RawInbox) {
        // Nobody has to be paused any more who has left.
        if !line.cancellation.is_cancelled()
            && let Some(operation) = inbox.poll_flow(&self.down.limits)
        {
            self.down.control_flow(&line.node, line.opening.shared_id(), operation);
        }
    }

    fn get(&self, id: &str) -> Option<Arc<Line>> {
        lock(&self.lines).get(id).map(Arc::clone)
    }

    /// Takes this very connection out; `false` when somebody has done so already.
    fn remove(&self, line: &Arc<Line>, end: &End) -> bool {
        let mut lines = lock(&self.lines);
        let is_here = lines.get(line.opening.id()).is_some_and(|present| Arc::ptr_eq(present, line));
        if is_here {
            lines.remove(line.opening.id());
            self.down.ended(line.opening.id(), end);
        }
        is_here
    }

    /// Adds a connection; returns the one that had the id before and stays.
    fn insert(&self, line: &Arc<Line>) -> Result<(), Arc<Line>> {
        match lock(&self.lines).entry(line.opening.shared_id()) {
            Entry::Occupied(present) => Err(Arc::clone(present.get())),
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(line));
                self.down.metrics.connections.inc();
                self.down.metrics.opened.inc();
                Ok(())
            }
        }
    }
}

impl Endpoint for RawAtWork {
    fn down(&self) -> &Arc<Downward> {
        &self.down
    }

    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection) {
        let (opening, inbox) = (Opening::new(body, &message), Mutex::default());
        let (node, cancellation) = (Arc::clone(node), CancellationToken::new());
        let line = Arc::new(Line { opening, node, cancellation, home, inbox });
        if let Err(present) = self.insert(&line) {
            if !Arc::ptr_eq(&present.node, &line.node) {
                return self.down.turn_away(&line.node, line.opening.shared_id(), Cause::IdInUse, ID_IN_USE);
            }
            // The proxy opens an id anew when it knows that the old connection is gone.
            self.left(&present, &End::of(Cause::Superseded));
            if self.insert(&line).is_err() {
                return;
            }
        }
        let Some(me) = self.me.upgrade() else { return };
        tracing::debug!(hub = %self.down.hub, connection = short(line.opening.id()), "connection opened");
        self.tasks.spawn(me.run(line));
    }

    fn handle_data(&self, data: ConnectionData) {
        let Some(line) = self.get(&data.connection_id) else { return };
        let message = RawMessage::new(RawKind::from_data_type(data.data_type), data.payload);
        let waiting = {
            let mut inbox = lock(&line.inbox);
            let waiting = inbox.push(message);
            self.settle_flow(&line, &mut inbox);
            waiting
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn handle_left(&self, close: CloseConnection) {
        let Some(line) = self.get(&close.connection_id) else { return };
        self.left(&line, &End::told(&close));
    }

    fn handle_link_ended(&self, link: LinkId, end: &End) {
        let at_home: Vec<_> = lock(&self.lines).values().filter(|line| line.home == link).map(Arc::clone).collect();
        at_home.iter().for_each(|line| self.left(line, end));
    }
}
