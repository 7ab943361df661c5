// remedy: nothing like `Rc` or a lock's guard may live across an `.await`
use std::sync::{Arc, Mutex};

use axum::extract::State;
use trunkline::{Context, Hub, HubError};

async fn count(ctx: Context, State(counter): State<Arc<Mutex<u32>>>) -> Result<(), HubError> {
    let counter = counter.lock().unwrap();
    ctx.clients().all().send("Counted", (*counter,)).await?;
    Ok(())
}

fn main() {
    let _hub: Hub<Arc<Mutex<u32>>> = Hub::new("/chat").method("Count", count);
}
