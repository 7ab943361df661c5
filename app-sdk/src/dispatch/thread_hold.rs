//! Warning about code of the app that keeps its thread for long: it belongs into `spawn_blocking`, or its waits into
//! `await`.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use crate::log_limit::LinePermit;
use crate::outbound::Outbound;

/// Time that code of the app may keep its thread before that is told: a thousand times what it should take.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// Runs code of the app, and passes on how long each part of it between two waits has taken.
pub(super) async fn watch_turns<F: Future + Unpin>(mut running: F, mut note: impl FnMut(Duration)) -> F::Output {
    poll_fn(|context| {
        let since = Instant::now();
        let polled = running.poll_unpin(context);
        note(since.elapsed());
        polled
    })
    .await
}

/// Notes how long a method or hook has kept its thread without a wait.
pub(super) fn note_turn(outbound: &Outbound, method: &str, took: Duration) {
    if took < HOLD_MAX {
        return;
    }
    let (hub, seconds) = (&*outbound.name, took.as_secs_f64());
    if let Some(LinePermit { left_out }) = outbound.hold_limit.take() {
        tracing::warn!(
            hub,
            method,
            seconds,
            left_out,
            "a method has kept its thread: what blocks belongs into tokio::task::spawn_blocking"
        );
    }
}
