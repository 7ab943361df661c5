//! A client that is watched: what it says, asked of its shard again and again until nobody looks any more.

use axum::http::Response;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::Observer;
use super::listing::quoted;
use crate::shard::Location;
use crate::shard::TapReport;
use crate::shard::{ShardSender, TapError};

/// Why a client is not watched.
#[derive(Debug)]
pub(crate) enum WatchProblem {
    /// It is not here.
    Unknown,
    /// Others are watched, or too many streams are open.
    TooMany(String),
}

/// A watch. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    shard: ShardSender,
    number: u64,
    _stream: OwnedSemaphorePermit,
}

impl Watch {
    /// What was seen since it was asked last; `None` when the node ends.
    pub(crate) async fn report(&self) -> Option<TapReport> {
        let number = self.number;
        self.shard.inspect(move |state| state.read_tap(number)).await?
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let number = self.number;
        self.shard.post(move |state| state.end_tap(number));
    }
}

impl Observer {
    /// Begins to watch a client of this node.
    ///
    /// # Errors
    /// When it is not here, or no more can be watched.
    pub(crate) async fn watch_here(&self, id: &str, with_payloads: bool) -> Result<Watch, WatchProblem> {
        let shared = &self.admin.shared;
        let Location { shard, slot } = shared.routes.find(id).ok_or(WatchProblem::Unknown)?;
        let shard = shared.shards().get(usize::from(shard)).ok_or(WatchProblem::Unknown)?.clone();
        let too_many = || WatchProblem::TooMany(format!("{} streams are open, and no more can be", super::STREAMS_MAX));
        let stream = self.stream().ok_or_else(too_many)?;
        let id = id.to_owned();
        match shard.inspect(move |state| state.tap(slot, &id, with_payloads)).await {
            Some(Ok(number)) => Ok(Watch { shard, number, _stream: stream }),
            Some(Err(error @ TapError::TooMany)) => Err(WatchProblem::TooMany(error.to_string())),
            Some(Err(TapError::Unknown)) | None => Err(WatchProblem::Unknown),
        }
    }

    /// The stream of another node that watches one of its clients.
    pub(crate) async fn watch_there(&self, id: &str, with_payloads: bool) -> Option<Response<Incoming>> {
        let payloads = if with_payloads { "shown" } else { "hidden" };
        let target = format!("/api/clients/{}/watch?scope=node&payloads={payloads}", quoted(id));
        self.peers().find(&target).await
    }
}
