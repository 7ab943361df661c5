//! Watch of this node's clients: started at the shards, read in time order, stopped on drop.
//!
//! ```text
//!  shard 0 ─ pieces ─┐
//!  shard 1 ─ pieces ─┼─► held until every shard has reported up to that time ─► pieces, oldest first ─► lines
//! ```
//!
//! Pieces of one client come from one shard, in order. Pieces of several shards are merged by time: those younger than
//! the start of a polling round wait for the next round. [Taps](super::client_tap) and
//! [traces](super::node_trace) turn pieces into lines.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::engine::shard::{ShardSender, Shared, Slot};
use crate::engine::upstream::Hub;
use crate::features::watch::{
    ConnectionChange, WatchDetail, WatchLoss, WatchOrder, WatchPiece, WatchRefused, WatchSubject, WatchVolume, Watches,
    inspect_watches, redaction,
};
use crate::ground::clock::unix_ms;

/// Poll interval of shards, short enough for their buffers to absorb hundreds of megabits per second.
const INTERVAL: Duration = Duration::from_millis(100);

/// Poll interval of a tapped shard.
const TAP_INTERVAL: Duration = Duration::from_millis(300);

/// Whether a watch shows message payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadView {
    Hidden,
    Shown,
}

#[derive(Debug, Clone)]
pub(crate) struct WatchChoice {
    /// Name or path of the hub; `None` for all hubs.
    pub hub: Option<String>,
    /// Conditions on the clients; all must match.
    pub subjects: Vec<WatchSubject>,
    pub payloads: PayloadView,
    /// Duration in seconds; `None` runs until dropped.
    pub seconds: Option<u64>,
}

#[derive(Debug)]
pub(crate) enum WatchError {
    UnknownHub,
    UnknownClient,
    /// Limit of watches or streams reached; the text states which.
    TooMany(String),
    Stopping,
}

pub(crate) trait WatchLines: Send + 'static {
    type Line: Serialize + Send;

    /// Waits for the next lines, possibly an empty batch; `None` after the last one.
    fn next(&mut self) -> impl Future<Output = Option<Vec<Self::Line>>> + Send;
}

/// Pieces of all shards since the last round.
#[derive(Debug, Default)]
pub(super) struct WatchNews {
    /// Pieces in time order, each with the index of its shard in the watch.
    pub(super) pieces: Vec<(usize, WatchPiece)>,
    pub(super) loss: WatchLoss,
    /// Messages from clients since the watch began.
    pub(super) up: WatchVolume,
    /// Messages to clients since the watch began.
    pub(super) down: WatchVolume,
    /// Set if these are the last pieces.
    pub(super) end: Option<WatchEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchEnd {
    Time,
    /// A shard has stopped, or was not polled for too long.
    Stopping,
}

#[derive(Debug)]
pub(super) struct NodeWatch {
    /// Keeps the hub index from being reused while shards follow it.
    _hub: Option<Arc<Hub>>,
    pub(super) shards: Vec<(ShardSender, u64)>,
    pub(super) started: Instant,
    pub(super) started_ms: u64,
    interval: Duration,
    read_at: Instant,
    held: TimeOrder<(usize, WatchPiece)>,
}

impl PayloadView {
    /// Value of the query parameter.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Shown => "shown",
        }
    }
}

impl NodeWatch {
    /// Starts following existing and new clients.
    pub(super) async fn open_watch(
        shared: &Shared,
        choice: &WatchChoice,
        detail: WatchDetail,
    ) -> Result<Self, WatchError> {
        let hubs = &shared.hubs;
        let named = |name: &String| hubs.named(name).or_else(|| hubs.find(name)).ok_or(WatchError::UnknownHub);
        let hub = choice.hub.as_ref().map(named).transpose()?;
        let order = WatchOrder {
            hub: hub.as_ref().map(|hub| hub.index()),
            subjects: choice.subjects.clone(),
            detail,
            with_payloads: choice.payloads == PayloadView::Shown,
        };
        let mut watch = Self::new(hub, INTERVAL);
        let started = watch.started;
        for shard in shared.shards() {
            let order = order.clone();
            let begun = inspect_watches(shard, move |watches, _| watches.begin_watch(order, started)).await;
            watch.shards.push((shard.clone(), begun.ok_or(WatchError::Stopping)??));
        }
        try_join_all(watch.shards.iter().map(|(shard, number)| find_present(shard, *number))).await?;
        Ok(watch)
    }

    /// Starts following one client at its shard.
    pub(super) async fn open_at(
        shard: &ShardSender,
        (slot, id): (Slot, &str),
        payloads: PayloadView,
    ) -> Result<Self, WatchError> {
        let (detail, with_payloads) = (WatchDetail::Summaries, payloads == PayloadView::Shown);
        let order = WatchOrder { hub: None, subjects: Vec::new(), detail, with_payloads };
        let mut watch = Self::new(None, TAP_INTERVAL);
        let (id, started) = (id.to_owned(), watch.started);
        let begun =
            inspect_watches(shard, move |watches, of| watches.begin_at(of.connections, (slot, &id), order, started))
                .await;
        watch.shards.push((shard.clone(), begun.ok_or(WatchError::UnknownClient)??));
        Ok(watch)
    }

    fn new(hub: Option<Arc<Hub>>, interval: Duration) -> Self {
        let (started, started_ms, held) = (Instant::now(), unix_ms(), TimeOrder::default());
        Self { _hub: hub, shards: Vec::new(), started, started_ms, interval, read_at: started, held }
    }

    /// Waits for the next poll or the end time, then reads all shards.
    pub(super) async fn next(&mut self, ends_at: Option<Instant>) -> WatchNews {
        sleep_until(ends_at.map_or(self.read_at, |ends_at| self.read_at.min(ends_at))).await;
        let is_last = ends_at.is_some_and(|ends_at| Instant::now() >= ends_at);
        // The pieces of a single shard are already in order.
        let is_whole = is_last || self.shards.len() == 1;
        let given_until = if is_whole { Duration::MAX } else { self.started.elapsed() };
        let mut news = self.read_shards().await;
        self.read_at = Instant::now() + self.interval;
        news.pieces = self.held.settle(given_until).collect();
        news.end = news.end.or_else(|| is_last.then_some(WatchEnd::Time));
        news
    }

    async fn read_shards(&mut self) -> WatchNews {
        let mut news = WatchNews::default();
        for (index, (shard, number)) in self.shards.iter().enumerate() {
            let number = *number;
            let Some(Some(batch)) = inspect_watches(shard, move |watches, of| watches.read_batch(of, number)).await
            else {
                return WatchNews { end: Some(WatchEnd::Stopping), ..WatchNews::default() };
            };
            news.loss.messages += batch.loss.messages;
            news.loss.hops += batch.loss.hops;
            news.loss.connections += batch.loss.connections;
            (news.up, news.down) = (batch.up, batch.down);
            self.held.add_pieces(batch.pieces.into_iter().map(|piece| (piece.at, (index, piece))));
        }
        news
    }
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        for (shard, number) in self.shards.drain(..) {
            shard.post(move |state| {
                state.core.run_tap(|watches: &mut Watches, _| watches.end_watch(number));
            });
        }
    }
}

async fn find_present(shard: &ShardSender, number: u64) -> Result<(), WatchError> {
    let mut next = Some(0);
    while let Some(from) = next {
        let step = inspect_watches(shard, move |watches, of| watches.find_present(of.connections, number, from)).await;
        next = step.ok_or(WatchError::Stopping)?;
    }
    Ok(())
}

impl From<WatchRefused> for WatchError {
    fn from(refused: WatchRefused) -> Self {
        match refused {
            WatchRefused::Unknown => Self::UnknownClient,
            WatchRefused::TooMany(_) => Self::TooMany(refused.to_string()),
        }
    }
}

pub(super) fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

/// Label of a connection change, with the cause and redacted detail of a close.
pub(super) fn change_words(change: &ConnectionChange) -> (&'static str, Option<String>, Option<String>) {
    let word = match change {
        ConnectionChange::Present => "present",
        ConnectionChange::Opened => "opened",
        ConnectionChange::Arrived => "arrived",
        ConnectionChange::Joined => "joined",
        ConnectionChange::Left => "left",
        ConnectionChange::Moved => "moved",
        ConnectionChange::Closed(cause, detail) => {
            let detail = detail.as_deref().map(|detail| redaction::text(detail).into_owned());
            return ("closed", Some(cause.label().into()), detail);
        }
    };
    (word, None, None)
}

#[derive(Debug)]
pub(super) struct TimeOrder<T>(Vec<(Duration, T)>);

impl<T> TimeOrder<T> {
    /// Adds pieces of one shard, in order.
    pub(super) fn add_pieces(&mut self, pieces: impl IntoIterator<Item = (Duration, T)>) {
        self.0.extend(pieces);
    }

    /// Takes pieces up to the time that all shards have reported completely, oldest first.
    pub(super) fn settle(&mut self, told_until: Duration) -> impl Iterator<Item = T> {
        // Stable sort keeps the order within a shard.
        self.0.sort_by_key(|(at, _)| *at);
        let settled = self.0.partition_point(|(at, _)| *at <= told_until);
        self.0.drain(..settled).map(|(_, piece)| piece)
    }
}

impl<T> Default for TimeOrder<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn younger_pieces_wait_and_those_of_one_time_keep_their_order() {
        let at = Duration::from_millis;
        let mut order = TimeOrder::default();
        order.add_pieces([(at(3), "c"), (at(9), "f")]);
        order.add_pieces([(at(1), "a"), (at(3), "d"), (at(2), "b")]);
        assert_eq!(order.settle(at(5)).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        order.add_pieces([(at(7), "e")]);
        assert_eq!(order.settle(at(9)).collect::<Vec<_>>(), ["e", "f"]);
    }
}
