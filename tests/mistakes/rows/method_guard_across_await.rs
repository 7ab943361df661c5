// remedy: await occurs here, with `mut counter` maybe used later
use std::sync::{Arc, Mutex};

use axum::extract::State;
use trunkline::{Context, HubError, debug_method};

#[debug_method]
async fn count(ctx: Context, State(counter): State<Arc<Mutex<u32>>>) -> Result<(), HubError> {
    let mut counter = counter.lock().unwrap();
    *counter += 1;
    ctx.clients().all().send("Counted", (*counter,)).await?;
    Ok(())
}

fn main() {}
