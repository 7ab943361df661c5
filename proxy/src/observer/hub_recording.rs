//! Recording of a hub's clients on this node, as JSON lines.

use std::collections::VecDeque;

use super::node_watch::{NodeWatch, PayloadView, WatchChoice, WatchError, WatchLines};
use super::recorded_message::lines;
use super::recording_line::{FORMAT, LossLine, RecordingHeader, RecordingLine, VERSION};
use crate::shard::Shared;
use crate::watch::{WatchDetail, WatchLoss, WatchPiece};

/// Maximum number of pieces decoded before yielding to other tasks.
const PIECES_MAX: usize = 256;

/// Running recording. Dropping it stops the recording.
#[derive(Debug)]
pub(crate) struct HubRecording {
    watch: NodeWatch,
    /// First line, until it is taken.
    header: Option<RecordingHeader>,
    payloads: PayloadView,
    /// Ordered pieces still to be written as lines.
    ready: VecDeque<WatchPiece>,
}

impl HubRecording {
    /// Starts recording existing and new clients.
    pub(crate) async fn open(shared: &Shared, choice: &WatchChoice) -> Result<Self, WatchError> {
        let watch = NodeWatch::open(shared, choice, WatchDetail::Bytes).await?;
        let header = RecordingHeader {
            format: FORMAT.into(),
            version: VERSION,
            node: shared.settings.node.clone(),
            hub: watch.hub().ok_or(WatchError::UnknownHub)?.name().into(),
            started_ms: watch.started_ms(),
            payloads: choice.payloads == PayloadView::Shown,
        };
        Ok(Self { watch, header: Some(header), payloads: choice.payloads, ready: VecDeque::new() })
    }
}

impl WatchLines for HubRecording {
    type Line = RecordingLine;

    async fn next(&mut self) -> Option<Vec<RecordingLine>> {
        if let Some(header) = self.header.take() {
            return Some(vec![RecordingLine::Header(header)]);
        }
        let mut all = Vec::new();
        if self.ready.is_empty() {
            let news = self.watch.next(None).await;
            if news.end.is_some() {
                return None;
            }
            if news.loss != WatchLoss::default() {
                let WatchLoss { messages, connections, .. } = news.loss;
                all.push(RecordingLine::Lost(LossLine { messages, connections }));
            }
            self.ready.extend(news.pieces.into_iter().map(|(_, piece)| piece));
        }
        for piece in self.ready.drain(..PIECES_MAX.min(self.ready.len())) {
            all.extend(lines(&piece, self.payloads));
        }
        Some(all)
    }
}
