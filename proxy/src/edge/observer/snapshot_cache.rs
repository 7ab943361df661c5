//! Single-flight cache of snapshots: concurrent callers share one, fresh for 200 ms.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Maximum age of a reused snapshot.
const FRESH: Duration = Duration::from_millis(200);

/// Required freshness of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// At most 200 ms old.
    Recent,
    /// Gathered after the request, as a basis for decisions.
    Asked,
}

impl Freshness {
    /// Maximum age at the time of the request.
    fn age_max(self) -> Duration {
        match self {
            Self::Recent => FRESH,
            Self::Asked => Duration::ZERO,
        }
    }
}

#[derive(Debug)]
struct SnapshotCaller<T> {
    asked: Instant,
    freshness: Freshness,
    answer: oneshot::Sender<Arc<T>>,
}

impl<T> SnapshotCaller<T> {
    /// Whether a snapshot begun at this time is fresh enough for the caller.
    fn takes(&self, begun: Instant) -> bool {
        begun > self.asked || self.asked - begun < self.freshness.age_max()
    }
}

/// Maximum number of queued callers; further ones wait.
const CALLERS_MAX: usize = 64;

/// Handle of the cache; clones share the cache.
#[derive(Debug)]
pub(super) struct SnapshotCache<T>(mpsc::Sender<SnapshotCaller<T>>);

impl<T> Clone for SnapshotCache<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> SnapshotCache<T> {
    /// Starts the cache's task, which calls `gather` on request if the last snapshot is stale, and ends with the last
    /// handle. Needs a runtime.
    pub(super) fn new<S: Send + 'static>(
        mut source: S,
        gather: impl for<'a> Fn(&'a mut S) -> BoxFuture<'a, T> + Send + 'static,
    ) -> Self {
        let (callers, mut queue) = mpsc::channel::<SnapshotCaller<T>>(CALLERS_MAX);
        tokio::spawn(async move {
            let mut last: Option<(Instant, Arc<T>)> = None;
            while let Some(caller) = queue.recv().await {
                let fresh = last.take_if(|(at, _)| caller.takes(*at));
                let (at, snapshot) = match fresh {
                    Some(fresh) => fresh,
                    None => (Instant::now(), Arc::new(gather(&mut source).await)),
                };
                // Fails if the caller is gone.
                drop(caller.answer.send(snapshot.clone()));
                last = Some((at, snapshot));
            }
        });
        Self(callers)
    }

    /// Returns a snapshot; `None` during shutdown.
    pub(super) async fn get(&self, freshness: Freshness) -> Option<Arc<T>> {
        let (answer, snapshot) = oneshot::channel();
        self.0.send(SnapshotCaller { asked: Instant::now(), freshness, answer }).await.ok()?;
        snapshot.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_a_snapshot_and_a_later_one_gets_a_new_one() {
        let cache = SnapshotCache::new(0, |count: &mut u32| {
            *count += 1;
            let count = *count;
            async move { count }.boxed()
        });
        let recent = || cache.get(Freshness::Recent);
        let (one, two) = tokio::join!(recent(), recent());
        assert_eq!((*one.unwrap(), *two.unwrap()), (1, 1));
        tokio::time::advance(FRESH).await;
        assert_eq!(*recent().await.unwrap(), 2);
        assert_eq!(*cache.get(Freshness::Asked).await.unwrap(), 3, "one that was gathered before is too old");
        assert_eq!(*recent().await.unwrap(), 3);
    }
}
