//! Methods that wait until the test releases them.

use axum::extract::State;
use tokio::sync::watch;
use trunkline::{Context, Hub, HubError, UploadStream};

#[derive(Clone)]
pub(crate) struct Gate {
    is_open: watch::Sender<bool>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { is_open: watch::Sender::new(false) }
    }
}

impl Gate {
    async fn pass(&self) {
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

pub(crate) fn methods(hub: Hub<Gate>) -> Hub<Gate> {
    hub.method("SetGate", set_gate).method("Take", take).method("TakeUpload", take_upload)
}
