//! Consumer of a link's frames. It never waits for a method, a client or the writer.

use std::convert::Infallible;
use std::future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};
use trunkline_link::FrameSink;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{
    CRASHED_NODE_KEY, CloseConnection, ECHO_KEY, FrameHead, Ping, ServiceMessage, TracedData, bytes_of_frame,
};

use super::session::LinkSession;
use super::slots::Slots;
use crate::connection::Connection;

/// Time after which blocked workers get others started next to them.
const HELD_UP_MAX: Duration = Duration::from_millis(5);

/// Minimum interval between log lines about skipped frames.
const SKIPPED_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct EndpointSink<'a> {
    session: &'a LinkSession,
    slots: &'a Slots,
    /// Connections with workers that start at the end of the batch.
    due: Vec<Arc<Connection>>,
    blocked_check: Pin<Box<Sleep>>,
    skipped: Option<Instant>,
}

impl<'a> EndpointSink<'a> {
    pub(super) fn new(session: &'a LinkSession, slots: &'a Slots) -> Self {
        Self { session, slots, due: Vec::new(), blocked_check: Box::pin(sleep(HELD_UP_MAX)), skipped: None }
    }

    /// Starts workers for the connections of a read, and next to blocked ones.
    fn start_workers(&mut self) {
        let tasks = self.session.due.push(&mut self.due, std::time::Instant::now());
        self.session.endpoint.start_workers(&self.session.due, tasks);
    }
}

impl Drop for EndpointSink<'_> {
    /// Starts all waiting work, because no later check for blocked workers follows.
    fn drop(&mut self) {
        let tasks = self.session.due.begin_rest(std::time::Instant::now());
        self.session.endpoint.start_workers(&self.session.due, tasks);
    }
}

impl FrameSink for EndpointSink<'_> {
    fn handle_ping(&mut self, ping: &Ping) {
        if ping.get(ECHO_KEY).is_some() {
            self.session.outbox.echo(ping);
        }
        match &self.session.service {
            Some(service) => service.pings.handle_ping(self.session.id, &self.session.outbox, ping),
            None => {
                if let Some(boot) = ping.get(CRASHED_NODE_KEY) {
                    self.slots.suspect_node(boot);
                }
            }
        }
    }

    fn handle_frame(&mut self, body: &Bytes, message: Option<ServiceMessage>) -> Result<(), String> {
        if let Some(message) = message {
            self.due.extend(handle(self.session, body, message));
        }
        let metrics = &self.session.endpoint.outbound().metrics;
        metrics.frames_up.inc();
        metrics.bytes_up.inc_by(bytes_of_frame(body.len()) as u64);
        Ok(())
    }

    /// Closes the connections that depend on the frame, here and at the proxy.
    fn handle_skipped(&mut self, head: &FrameHead, problem: &str) {
        let LinkSession { endpoint, node, .. } = self.session;
        let (outbound, now) = (endpoint.outbound(), Instant::now());
        outbound.metrics.frames_skipped.inc();
        if self.skipped.is_none_or(|last| now - last >= SKIPPED_INTERVAL) {
            self.skipped = Some(now);
            let (hub, node, kind) = (&outbound.name, node.name(), head.name());
            tracing::warn!(%hub, node, kind, problem, connections = head.connections.len(), "skipped a frame of a proxy");
        }
        for id in &head.connections {
            let error = Some(problem.into());
            outbound.close_at_proxy(node, id.clone(), Cause::AppFrameSkipped, error.clone());
            endpoint.handle_close(node, CloseConnection { connection_id: id.clone(), error, headers: Vec::new() });
        }
    }

    async fn end_batch(&mut self, _bytes: usize) {
        self.start_workers();
        self.session.node.note_received();
    }

    async fn idle(&mut self) -> Infallible {
        while self.session.due.is_waiting() {
            self.blocked_check.as_mut().reset(Instant::now() + HELD_UP_MAX);
            self.blocked_check.as_mut().await;
            self.start_workers();
        }
        future::pending().await
    }
}

/// Handles data that a live trace of the proxy follows. A traced frame of any other kind is ignored.
fn handle_traced(session: &LinkSession, traced: &TracedData) -> Option<Arc<Connection>> {
    match ServiceMessage::decode(&traced.body) {
        Ok(Some(ServiceMessage::ConnectionData(data))) => session.endpoint.handle_data(data, Some(traced.mark)),
        _ => {
            tracing::debug!(hub = %session.endpoint.outbound().name, "traced frame is ignored: it holds no data");
            None
        }
    }
}

/// Handles a frame. Returns a connection if its worker must be started.
fn handle(session: &LinkSession, body: &Bytes, message: ServiceMessage) -> Option<Arc<Connection>> {
    let LinkSession { endpoint, node, id, .. } = session;
    match message {
        ServiceMessage::OpenConnection(open) => endpoint.handle_open(*id, node, body, open),
        ServiceMessage::ConnectionData(data) => return endpoint.handle_data(data, None),
        ServiceMessage::TracedData(traced) => return handle_traced(session, &traced),
        ServiceMessage::CloseConnection(close) => endpoint.handle_close(node, close),
        ServiceMessage::ServiceError(error) => {
            tracing::warn!(hub = %endpoint.outbound().name, error = %error.error, "the proxy reports an error");
        }
        other => endpoint.handle(*id, node, other),
    }
    None
}
