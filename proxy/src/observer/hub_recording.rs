//! Recording of a hub's clients on this node: opened at every shard, read in the order of time.
//!
//! ```text
//!  shard 0 ─ pieces ─┐
//!  shard 1 ─ pieces ─┼─► held until every shard has told all of that time ─► lines, oldest first
//! ```
//!
//! A client's pieces come from one shard, in order. Those of different shards are put in order by their times: what is
//! younger than the beginning of a round of questions waits for the next round, when all shards have told what came before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::client_tap::PayloadView;
use super::recorded_message::lines;
use super::recording_line::{FORMAT, LossLine, RecordingHeader, RecordingLine, VERSION};
use super::time_order::TimeOrder;
use crate::clock::unix_ms;
use crate::shard::{RecordRefused, RecordedPiece, RecordingFilter, ShardSender, Shared};
use crate::upstream::Hub;

/// Interval at which shards are read: often enough that their buffers last at hundreds of megabits.
const INTERVAL: Duration = Duration::from_millis(100);

/// Maximum number of pieces that are decoded at a time: other tasks of the thread have their turn after them.
const PIECES_MAX: usize = 256;

/// Choice of the clients of a recording.
#[derive(Debug, Clone)]
pub(crate) struct RecordingChoice {
    /// Name or path of the hub.
    pub hub: String,
    pub user: Option<String>,
    pub connection: Option<String>,
    pub payloads: PayloadView,
}

/// Error of a recording that does not begin.
#[derive(Debug)]
pub(crate) enum RecordingError {
    UnknownHub,
    /// Too many recordings run; the text says so.
    TooMany(String),
    /// The node is stopping.
    Stopping,
}

/// Running recording; dropping it ends it.
#[derive(Debug)]
pub(crate) struct HubRecording {
    /// Held so that its index means no other hub while shards record by it.
    _hub: Arc<Hub>,
    header: RecordingHeader,
    payloads: PayloadView,
    shards: Vec<(ShardSender, u64)>,
    started: Instant,
    read_at: Instant,
    /// Pieces that may be younger than some that no shard has told.
    held: TimeOrder<RecordedPiece>,
    /// Pieces in order, to be told next.
    ready: VecDeque<RecordedPiece>,
}

impl HubRecording {
    /// Begins to record the clients that are here, and those that open from now on.
    pub(crate) async fn open(shared: &Arc<Shared>, choice: RecordingChoice) -> Result<Self, RecordingError> {
        let hubs = &shared.hubs;
        let hub = hubs.named(&choice.hub).or_else(|| hubs.find(&choice.hub)).ok_or(RecordingError::UnknownHub)?;
        let header = RecordingHeader {
            format: FORMAT.into(),
            version: VERSION,
            node: shared.settings.node.clone(),
            hub: hub.name().into(),
            started_ms: unix_ms(),
            payloads: choice.payloads == PayloadView::Shown,
        };
        let filter = RecordingFilter { hub: hub.index(), user: choice.user, connection: choice.connection };
        let (started, shards, payloads) = (Instant::now(), Vec::new(), choice.payloads);
        let (held, ready) = (TimeOrder::default(), VecDeque::new());
        let mut recording = Self { _hub: hub, header, payloads, shards, started, read_at: started, held, ready };
        for shard in shared.shards() {
            let filter = filter.clone();
            let begun = shard.inspect(move |state| state.record(filter, started)).await;
            let number = begun.ok_or(RecordingError::Stopping)?;
            let number = number.map_err(|error: RecordRefused| RecordingError::TooMany(error.to_string()))?;
            recording.shards.push((shard.clone(), number));
        }
        for (shard, number) in &recording.shards {
            let (number, mut next) = (*number, Some(0));
            while let Some(from) = next {
                let step = shard.inspect(move |state| state.record_present(number, from)).await;
                next = step.ok_or(RecordingError::Stopping)?;
            }
        }
        Ok(recording)
    }

    /// Returns the first line.
    #[must_use]
    pub(crate) fn header(&self) -> RecordingLine {
        RecordingLine::Header(self.header.clone())
    }

    /// Returns the next lines, perhaps none, after some time; `None` when the recording is over, because the node is
    /// stopping or because it was not read for too long.
    pub(crate) async fn next(&mut self) -> Option<Vec<RecordingLine>> {
        let mut told = Vec::new();
        if self.ready.is_empty() {
            sleep_until(self.read_at).await;
            let loss = self.read_shards().await?;
            self.read_at = Instant::now() + INTERVAL;
            if loss != LossLine::default() {
                told.push(RecordingLine::Lost(loss));
            }
        }
        for piece in self.ready.drain(..PIECES_MAX.min(self.ready.len())) {
            told.extend(lines(&piece, self.payloads));
        }
        Some(told)
    }

    async fn read_shards(&mut self) -> Option<LossLine> {
        let told_until = self.started.elapsed();
        let mut loss = LossLine::default();
        for (shard, number) in &self.shards {
            let number = *number;
            let batch = shard.inspect(move |state| state.read_recording(number)).await??;
            loss.messages += batch.lost_messages;
            loss.connections += batch.lost_connections;
            self.held.add(batch.pieces.into_iter().map(|piece| (piece.at, piece)));
        }
        self.ready.extend(self.held.settle(told_until));
        Some(loss)
    }
}

impl Drop for HubRecording {
    fn drop(&mut self) {
        for (shard, number) in self.shards.drain(..) {
            shard.post(move |state| state.end_recording(number));
        }
    }
}
