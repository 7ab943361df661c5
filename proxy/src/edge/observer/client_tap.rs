//! Taps: the latest messages of one client connection, read from its shard while the stream is open.

use serde::{Deserialize, Serialize};

use super::node_watch::{NodeWatch, PayloadView, WatchError, WatchLines, WatchNews};
use crate::engine::shard::{ShardSender, Slot};
use crate::features::watch::{
    ConnectionChange, MessageDirection, MessageSummary, WatchEvent, WatchPiece, WatchVolume, WatchedMessage,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TappedMessage {
    /// Sequence number in the tap, from 1.
    pub number: u64,
    /// Time in milliseconds since 1970.
    pub at_ms: u64,
    pub way: MessageDirection,
    /// Kind of hub message, or of raw message.
    pub kind: String,
    /// Method name, if the message has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    pub bytes: u64,
    /// Payload as text, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// Messages of a tap since the last report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TapReport {
    /// Messages from the client since the tap began.
    pub up: WatchVolume,
    /// Messages to the client since the tap began.
    pub down: WatchVolume,
    /// Latest messages, oldest first.
    pub messages: Vec<TappedMessage>,
    /// Number of earlier messages that were dropped.
    pub missed: u64,
    pub is_over: bool,
}

/// Open tap at a shard. Dropping it closes the tap.
#[derive(Debug)]
pub(crate) struct ClientTap {
    watch: NodeWatch,
    is_over: bool,
}

impl ClientTap {
    pub(super) async fn open_tap(
        shard: &ShardSender,
        client: (Slot, &str),
        payloads: PayloadView,
    ) -> Result<Self, WatchError> {
        Ok(Self { watch: NodeWatch::open_at(shard, client, payloads).await?, is_over: false })
    }

    fn report(&self, news: WatchNews) -> TapReport {
        let WatchNews { pieces, loss, up, down, .. } = news;
        let is_end = |(_, piece): &(usize, WatchPiece)| match &piece.event {
            WatchEvent::Connection(_, change) => *change != ConnectionChange::Present,
            _ => false,
        };
        let is_over = pieces.iter().any(is_end);
        let messages = pieces.into_iter().filter_map(|(_, piece)| self.message(piece)).collect();
        TapReport { up, down, messages, missed: loss.messages, is_over }
    }

    fn message(&self, piece: WatchPiece) -> Option<TappedMessage> {
        let WatchEvent::Message(message) = piece.event else { return None };
        let WatchedMessage { number, way, summary, .. } = *message;
        let MessageSummary { kind, target, invocation_id, bytes, payload } = summary;
        let at_ms = u64::try_from(piece.at.as_millis()).unwrap_or(u64::MAX).saturating_add(self.watch.started_ms);
        let (number, kind) = (number + 1, kind.into());
        Some(TappedMessage { number, at_ms, way, kind, target, invocation_id, bytes, payload })
    }
}

impl WatchLines for ClientTap {
    type Line = TapReport;

    /// Ends after the report that the connection is closed.
    async fn next(&mut self) -> Option<Vec<TapReport>> {
        if self.is_over {
            return None;
        }
        let news = self.watch.next(None).await;
        if news.end.is_some() {
            return None;
        }
        let report = self.report(news);
        self.is_over = report.is_over;
        Some(vec![report])
    }
}
