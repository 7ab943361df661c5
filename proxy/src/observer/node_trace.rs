//! Live trace of this node alone: opened at every shard, told in the order of time, ended by its time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::client_summary::app_name;
use super::client_tap::PayloadView;
use super::time_order::TimeOrder;
use super::trace_line::{
    TraceConnectionLine, TraceEndLine, TraceHeader, TraceHopLine, TraceLine, TraceLossLine, TraceMessageLine,
};
use crate::clock::unix_ms;
use crate::shard::{
    ConnectionChange, ShardSender, Shared, TraceBatch, TraceEvent, TraceFilter, TraceHop, TracePiece, TraceRefused,
    TraceSubject, TracedMessage, redaction,
};
use crate::upstream::{Hub, HubIndex};

/// Longest trace, in seconds.
pub(crate) const TRACE_SECONDS_MAX: u64 = 600;

/// Length of a trace, unless told otherwise, in seconds.
pub(crate) const TRACE_SECONDS_DEFAULT: u64 = 30;

/// Interval at which shards are read: somebody looks at just that.
const INTERVAL: Duration = Duration::from_millis(100);

/// Choice of the messages of a trace.
#[derive(Debug, Clone)]
pub(crate) struct TraceChoice {
    /// Name or path of the hub; `None` for all hubs.
    pub hub: Option<String>,
    pub subject: TraceSubject,
    pub payloads: PayloadView,
    pub seconds: u64,
}

/// Error of a trace that does not begin.
#[derive(Debug)]
pub(crate) enum TraceError {
    UnknownHub,
    /// Too many traces run; the text says so.
    TooMany(String),
    /// The node is stopping.
    Stopping,
}

/// Running trace of this node; dropping it ends it.
#[derive(Debug)]
pub(crate) struct NodeTrace {
    shared: Arc<Shared>,
    /// Held so that its index means no other hub while shards follow by it.
    _hub: Option<Arc<Hub>>,
    header: TraceHeader,
    shards: Vec<(ShardSender, u64)>,
    started: Instant,
    read_at: Instant,
    ends_at: Instant,
    is_over: bool,
    /// Pieces that may be younger than some that no shard has told, each with its shard.
    held: TimeOrder<(usize, TracePiece)>,
}

impl NodeTrace {
    /// Begins to follow the clients that are here, and those that come.
    pub(super) async fn open(shared: &Arc<Shared>, choice: &TraceChoice) -> Result<Self, TraceError> {
        let hub = choice.hub.as_ref().map(|name| hub_named(shared, name).ok_or(TraceError::UnknownHub)).transpose()?;
        let header = TraceHeader {
            node: shared.settings.node.clone(),
            started_ms: unix_ms(),
            seconds: choice.seconds,
            payloads: choice.payloads == PayloadView::Shown,
        };
        let index = hub.as_ref().map(|hub| hub.index());
        let filter = TraceFilter { hub: index, subject: choice.subject.clone(), with_payloads: header.payloads };
        let started = Instant::now();
        let mut trace = Self {
            shared: shared.clone(),
            _hub: hub,
            ends_at: started + Duration::from_secs(choice.seconds),
            header,
            shards: Vec::new(),
            started,
            read_at: started,
            is_over: false,
            held: TimeOrder::default(),
        };
        for shard in shared.shards() {
            let filter = filter.clone();
            let begun = shard.inspect(move |state| state.trace(filter, started)).await;
            let number = begun.ok_or(TraceError::Stopping)?;
            let number = number.map_err(|error: TraceRefused| TraceError::TooMany(error.to_string()))?;
            trace.shards.push((shard.clone(), number));
        }
        let finding = trace.shards.iter().map(|(shard, number)| find_present(shard, *number));
        join_all(finding).await.into_iter().collect::<Option<()>>().ok_or(TraceError::Stopping)?;
        Ok(trace)
    }

    /// Returns the first line.
    #[must_use]
    pub(crate) fn header(&self) -> TraceLine {
        TraceLine::Header(self.header.clone())
    }

    /// Name of the node.
    #[must_use]
    pub(super) fn node(&self) -> &str {
        &self.header.node
    }

    /// Returns the next lines, perhaps none, after some time; `None` behind the last one.
    pub(crate) async fn next(&mut self) -> Option<Vec<TraceLine>> {
        if self.is_over {
            return None;
        }
        sleep_until(self.read_at.min(self.ends_at)).await;
        let is_last = Instant::now() >= self.ends_at;
        let told_until = if is_last { Duration::MAX } else { self.started.elapsed() };
        let loss = self.read_shards().await;
        self.read_at = Instant::now() + INTERVAL;
        let mut lines: Vec<_> = loss.iter().flat_map(|loss| self.loss_line(loss)).collect();
        let pieces: Vec<_> = self.held.settle(told_until).collect();
        lines.extend(pieces.into_iter().map(|(shard, piece)| self.line(shard, piece)));
        if is_last || loss.is_none() {
            self.is_over = true;
            let reason = if loss.is_none() { "stopping" } else { "time" };
            lines.push(TraceLine::End(TraceEndLine { node: self.header.node.clone(), reason: reason.into() }));
        }
        Some(lines)
    }

    /// Reads all shards; `None` when the node is stopping. The answer is the loss alone.
    async fn read_shards(&mut self) -> Option<TraceBatch> {
        let mut loss = TraceBatch::default();
        for (index, (shard, number)) in self.shards.iter().enumerate() {
            let number = *number;
            let batch = shard.inspect(move |state| state.read_trace(number)).await??;
            loss.dropped_messages += batch.dropped_messages;
            loss.dropped_hops += batch.dropped_hops;
            loss.dropped_connections += batch.dropped_connections;
            self.held.add(batch.pieces.into_iter().map(|piece| (piece.at, (index, piece))));
        }
        Some(loss)
    }

    fn loss_line(&self, loss: &TraceBatch) -> Option<TraceLine> {
        let TraceBatch { dropped_messages: messages, dropped_hops: hops, dropped_connections: connections, .. } = *loss;
        let is_any = messages + hops + connections > 0;
        is_any.then(|| TraceLine::Lost(TraceLossLine { node: self.header.node.clone(), messages, hops, connections }))
    }

    fn line(&self, shard: usize, piece: TracePiece) -> TraceLine {
        let at_us = u64::try_from(piece.at.as_micros()).unwrap_or(u64::MAX);
        let at_us = self.header.started_ms.saturating_mul(1_000).saturating_add(at_us);
        let node = self.header.node.clone();
        match piece.event {
            TraceEvent::Connection(connection, change) => {
                let (change, cause, detail) = told_change(change);
                let (id, hub) = (connection.id.to_string(), self.hub_name(connection.hub));
                let user = connection.user.clone();
                let change = change.into();
                TraceLine::Connection(TraceConnectionLine {
                    node,
                    at_us,
                    connection: id,
                    user,
                    hub,
                    change,
                    cause,
                    detail,
                })
            }
            TraceEvent::Message(message) => TraceLine::Message(Box::new(self.message(shard, at_us, *message))),
            TraceEvent::Hop(number, hop) => {
                let line = TraceHopLine { node, number: self.number(shard, number), ..TraceHopLine::default() };
                TraceLine::Hop(match hop {
                    TraceHop::Hub(times) => TraceHopLine { hub: Some(times), ..line },
                    TraceHop::Answered { us } => TraceHopLine { answered_us: Some(us), ..line },
                    TraceHop::Written { us } => TraceHopLine { written_us: Some(us), ..line },
                    TraceHop::Lost => TraceHopLine { lost: true, ..line },
                })
            }
        }
    }

    fn message(&self, shard: usize, at_us: u64, message: TracedMessage) -> TraceMessageLine {
        let connection = &message.connection;
        let app = message.app.and_then(|app| app_name(&self.shared, connection.hub, app));
        TraceMessageLine {
            node: self.header.node.clone(),
            number: self.number(shard, message.number),
            at_us,
            connection: connection.id.to_string(),
            user: connection.user.clone(),
            hub: self.hub_name(connection.hub),
            app,
            way: message.way,
            kind: message.kind.into(),
            target: message.target,
            invocation_id: message.invocation_id,
            bytes: message.bytes,
            payload: message.payload,
            link_us: message.link_us,
            refused: message.is_refused,
            open: message.is_open,
            marked: message.is_marked,
            answers: message.answers.map(|number| self.number(shard, number)),
        }
    }

    /// Number of a message of a shard among those of the node.
    fn number(&self, shard: usize, number: u64) -> u64 {
        number.saturating_mul(self.shards.len() as u64).saturating_add(shard as u64)
    }

    fn hub_name(&self, hub: HubIndex) -> String {
        self.shared.hubs.all().get(hub.get()).map(|hub| hub.name().to_owned()).unwrap_or_default()
    }
}

impl Drop for NodeTrace {
    fn drop(&mut self) {
        for (shard, number) in self.shards.drain(..) {
            shard.post(move |state| state.end_trace(number));
        }
    }
}

fn hub_named(shared: &Shared, name: &str) -> Option<Arc<Hub>> {
    shared.hubs.named(name).or_else(|| shared.hubs.find(name))
}

/// Follows the clients of a shard that are there; `None` when it is gone.
async fn find_present(shard: &ShardSender, number: u64) -> Option<()> {
    let mut next = Some(0);
    while let Some(from) = next {
        next = shard.inspect(move |state| state.trace_present(number, from)).await?;
    }
    Some(())
}

fn told_change(change: ConnectionChange) -> (&'static str, Option<String>, Option<String>) {
    let word = match change {
        ConnectionChange::Present => "present",
        ConnectionChange::Opened => "opened",
        ConnectionChange::Arrived => "arrived",
        ConnectionChange::Joined => "joined",
        ConnectionChange::Left => "left",
        ConnectionChange::Moved => "moved",
        ConnectionChange::Closed(cause, detail) => {
            let detail = detail.map(|detail| redaction::text(&detail).into_owned());
            return ("closed", Some(cause.label().into()), detail);
        }
    };
    (word, None, None)
}
