//! Single-flight cache of snapshots: concurrent callers share one, fresh for 200 ms.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Age up to which a snapshot is handed out again.
const FRESH: Duration = Duration::from_millis(200);

/// Maximum number of queued callers; more wait.
const CALLERS_MAX: usize = 64;

/// Handle of the cache; its clones share one cache.
#[derive(Debug)]
pub(super) struct SnapshotCache<T>(mpsc::Sender<oneshot::Sender<Arc<T>>>);

impl<T> Clone for SnapshotCache<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> SnapshotCache<T> {
    /// Starts the task behind the cache: it calls `gather` when a caller comes and the last snapshot is not fresh. It
    /// ends with the last handle. Needs a runtime.
    pub(super) fn new<S: Send + 'static>(
        mut source: S,
        gather: impl for<'a> Fn(&'a mut S) -> BoxFuture<'a, T> + Send + 'static,
    ) -> Self {
        let (callers, mut queue) = mpsc::channel::<oneshot::Sender<Arc<T>>>(CALLERS_MAX);
        tokio::spawn(async move {
            let mut last: Option<(Instant, Arc<T>)> = None;
            while let Some(caller) = queue.recv().await {
                let fresh = last.take_if(|(at, _)| at.elapsed() < FRESH);
                let (at, snapshot) = match fresh {
                    Some(fresh) => fresh,
                    None => (Instant::now(), Arc::new(gather(&mut source).await)),
                };
                // It fails where the caller has gone in the meantime.
                drop(caller.send(snapshot.clone()));
                last = Some((at, snapshot));
            }
        });
        Self(callers)
    }

    /// Returns a fresh snapshot; `None` when the node is stopping.
    pub(super) async fn get(&self) -> Option<Arc<T>> {
        let (caller, snapshot) = oneshot::channel();
        self.0.send(caller).await.ok()?;
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
        let (one, two) = tokio::join!(cache.get(), cache.get());
        assert_eq!((*one.unwrap(), *two.unwrap()), (1, 1));
        tokio::time::advance(FRESH).await;
        assert_eq!(*cache.get().await.unwrap(), 2);
    }
}
