//! Live trace of this node as JSON lines, limited in time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node_watch::{NodeWatch, PayloadView, WatchChoice, WatchEnd, WatchError, WatchLines, change_words, micros};
use super::snapshot::app_name;
use super::trace_line::{
    TraceConnectionLine, TraceEndLine, TraceHeader, TraceHopLine, TraceLine, TraceLossLine, TraceMessageLine,
};
use crate::engine::shard::Shared;
use crate::features::watch::{
    MessageSummary, TraceHop, WatchDetail, WatchEvent, WatchLoss, WatchPiece, WatchedConnection, WatchedMessage,
};

/// Maximum duration of a trace, in seconds.
pub const TRACE_SECONDS_MAX: u64 = 600;

/// Default duration of a trace, in seconds.
pub const TRACE_SECONDS_DEFAULT: u64 = 30;

/// Running trace of this node. Dropping it stops the trace.
#[derive(Debug)]
pub(crate) struct NodeTrace {
    shared: Arc<Shared>,
    watch: NodeWatch,
    pub(super) node: String,
    /// First line, until it is taken.
    header: Option<TraceHeader>,
    ends_at: Instant,
    is_over: bool,
}

impl NodeTrace {
    /// Starts following existing and new clients.
    pub(super) async fn open_trace(shared: &Arc<Shared>, choice: &WatchChoice) -> Result<Self, WatchError> {
        let watch = NodeWatch::open_watch(shared, choice, WatchDetail::Times).await?;
        let (node, seconds) = (shared.settings.node.clone(), choice.seconds.unwrap_or(TRACE_SECONDS_DEFAULT));
        let payloads = choice.payloads == PayloadView::Shown;
        let header = TraceHeader { node: node.clone(), started_ms: watch.started_ms, seconds, payloads };
        let ends_at = watch.started + Duration::from_secs(seconds);
        Ok(Self { shared: shared.clone(), watch, node, header: Some(header), ends_at, is_over: false })
    }

    pub(super) fn take_header(&mut self) -> Option<TraceLine> {
        self.header.take().map(TraceLine::Header)
    }

    fn loss_line(&self, loss: WatchLoss) -> Option<TraceLine> {
        let WatchLoss { messages, hops, connections } = loss;
        let line = TraceLossLine { node: self.node.clone(), messages, hops, connections };
        (loss != WatchLoss::default()).then_some(TraceLine::Lost(line))
    }

    fn line(&self, shard: usize, piece: WatchPiece) -> TraceLine {
        let at_us = self.watch.started_ms.saturating_mul(1_000).saturating_add(micros(piece.at));
        match piece.event {
            WatchEvent::Connection(connection, change) => {
                let (word, cause, detail) = change_words(&change);
                TraceLine::Connection(TraceConnectionLine {
                    node: self.node.clone(),
                    at_us,
                    connection: connection.id.to_string(),
                    user: connection.user.clone(),
                    hub: self.hub_name(&connection),
                    change: word.into(),
                    cause,
                    detail,
                })
            }
            WatchEvent::Message(message) => TraceLine::Message(Box::new(self.message(shard, at_us, *message))),
            WatchEvent::Hop(number, hop) => {
                let (node, number) = (self.node.clone(), self.number(shard, number));
                let line = TraceHopLine { node, number, ..TraceHopLine::default() };
                TraceLine::Hop(match hop {
                    TraceHop::Hub(times) => TraceHopLine { hub: Some(times), ..line },
                    TraceHop::Answered { us } => TraceHopLine { answered_us: Some(us), ..line },
                    TraceHop::Written { us } => TraceHopLine { written_us: Some(us), ..line },
                    TraceHop::Lost => TraceHopLine { lost: true, ..line },
                })
            }
        }
    }

    fn message(&self, shard: usize, at_us: u64, message: WatchedMessage) -> TraceMessageLine {
        let connection = &message.connection;
        let MessageSummary { kind, target, invocation_id, bytes, payload } = message.summary;
        TraceMessageLine {
            node: self.node.clone(),
            number: self.number(shard, message.number),
            at_us,
            connection: connection.id.to_string(),
            user: connection.user.clone(),
            hub: self.hub_name(connection),
            app: message.app.and_then(|app| app_name(&self.shared, connection.hub, app)),
            way: message.way,
            kind: kind.into(),
            target,
            invocation_id,
            bytes,
            payload,
            link_us: message.link_us,
            refused: message.is_refused,
            open: message.is_open,
            marked: message.is_marked,
            answers: message.answers.map(|number| self.number(shard, number)),
        }
    }

    /// Node-wide number of a shard's message.
    fn number(&self, shard: usize, number: u64) -> u64 {
        number.saturating_mul(self.watch.shards.len() as u64).saturating_add(shard as u64)
    }

    fn hub_name(&self, connection: &WatchedConnection) -> String {
        self.shared.hubs.at(connection.hub).map(|hub| hub.name().to_owned()).unwrap_or_default()
    }
}

impl WatchLines for NodeTrace {
    type Line = TraceLine;

    async fn next(&mut self) -> Option<Vec<TraceLine>> {
        if let Some(header) = self.take_header() {
            return Some(vec![header]);
        }
        if self.is_over {
            return None;
        }
        let news = self.watch.next(Some(self.ends_at)).await;
        let mut lines: Vec<_> = self.loss_line(news.loss).into_iter().collect();
        lines.extend(news.pieces.into_iter().map(|(shard, piece)| self.line(shard, piece)));
        if let Some(end) = news.end {
            self.is_over = true;
            let reason = if end == WatchEnd::Time { "time" } else { "stopping" };
            lines.push(TraceLine::End(TraceEndLine { node: self.node.clone(), reason: reason.into() }));
        }
        Some(lines)
    }
}
