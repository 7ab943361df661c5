//! Methods that wait until the test releases them, and that report how many run concurrently.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use tokio::sync::{Barrier, watch};
use trunkline::{Context, Hub, HubError, UploadStream};

/// Number of concurrent calls per client on `/parallel`.
pub(crate) const PARALLEL_INVOCATIONS: usize = 3;

#[derive(Clone)]
pub(crate) struct Gate {
    is_open: watch::Sender<bool>,
    running: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    party: Arc<Barrier>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            is_open: watch::Sender::new(false),
            running: Arc::default(),
            most_at_once: Arc::default(),
            party: Arc::new(Barrier::new(PARALLEL_INVOCATIONS)),
        }
    }
}

impl Gate {
    pub(crate) async fn pass(&self) {
        // The sender lives as long as the process, so waiting always ends.
        let _ = self.is_open.subscribe().wait_for(|is_open| *is_open).await;
    }
}

async fn set_gate(State(gate): State<Gate>, is_open: bool) {
    gate.is_open.send_replace(is_open);
}

/// Waits for the gate, then sends the number of this call to the caller.
async fn take(ctx: Context, State(gate): State<Gate>, number: u64, _padding: String) -> Result<(), HubError> {
    gate.pass().await;
    ctx.clients().caller().send("Taken", (number,)).await?;
    Ok(())
}

async fn take_upload(ctx: Context, State(gate): State<Gate>, mut numbers: UploadStream<u64>) -> Result<u64, HubError> {
    gate.pass().await;
    let mut count = 0;
    while let Some(number) = numbers.next().await {
        ctx.clients().caller().send("Taken", (number?,)).await?;
        count += 1;
    }
    Ok(count)
}

async fn work(ctx: Context, number: u64) -> Result<(), HubError> {
    let caller = ctx.clients().caller();
    caller.send("Began", (number,)).await?;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    caller.send("Ended", (number,)).await?;
    Ok(())
}

/// Returns once the maximum number of concurrent calls has arrived.
async fn meet(ctx: Context, State(gate): State<Gate>, number: u64) -> Result<(), HubError> {
    let running = gate.running.fetch_add(1, Ordering::Relaxed) + 1;
    gate.most_at_once.fetch_max(running, Ordering::Relaxed);
    ctx.clients().caller().send("Began", (number,)).await?;
    gate.party.wait().await;
    gate.running.fetch_sub(1, Ordering::Relaxed);
    Ok(())
}

async fn most_at_once(State(gate): State<Gate>) -> usize {
    gate.most_at_once.load(Ordering::Relaxed)
}

pub(crate) fn methods(hub: Hub<Gate>) -> Hub<Gate> {
    hub.method("SetGate", set_gate)
        .method("Take", take)
        .method("TakeUpload", take_upload)
        .method("Work", work)
        .method("Meet", meet)
        .method("MostAtOnce", most_at_once)
}
