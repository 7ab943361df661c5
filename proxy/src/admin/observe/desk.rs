//! One who gathers for all who ask: what was gathered a moment ago is told again, and nothing is gathered twice at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// What is younger is told again.
const FRESH: Duration = Duration::from_millis(200);

/// Those who ask while there are so many wait.
const WAITING_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Desk<T>(mpsc::Sender<oneshot::Sender<Arc<T>>>);

impl<T> Clone for Desk<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> Desk<T> {
    /// Opens a desk: `gather` is called whenever somebody asks for what is not there. It closes when nobody can ask.
    pub(super) fn open<S: Send + 'static>(
        mut source: S,
        gather: impl for<'a> Fn(&'a mut S) -> BoxFuture<'a, T> + Send + 'static,
    ) -> Self {
        let (questions, mut asked) = mpsc::channel::<oneshot::Sender<Arc<T>>>(WAITING_MAX);
        tokio::spawn(async move {
            let mut last: Option<(Instant, Arc<T>)> = None;
            while let Some(first) = asked.recv().await {
                let known = last.take_if(|(at, _)| at.elapsed() < FRESH);
                let (at, told) = match known {
                    Some(known) => known,
                    None => (Instant::now(), Arc::new(gather(&mut source).await)),
                };
                // Who has gone in the meantime is not told.
                drop(first.send(told.clone()));
                last = Some((at, told));
            }
        });
        Self(questions)
    }

    /// What there is; `None` when the node ends.
    pub(super) async fn ask(&self) -> Option<Arc<T>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_together_is_told_the_same_and_later_there_is_news() {
        let desk = Desk::open(0, |count: &mut u32| {
            *count += 1;
            let count = *count;
            async move { count }.boxed()
        });
        let (one, two) = tokio::join!(desk.ask(), desk.ask());
        assert_eq!((*one.unwrap(), *two.unwrap()), (1, 1));
        tokio::time::advance(FRESH).await;
        assert_eq!(*desk.ask().await.unwrap(), 2);
    }
}
