// remedy: call `.with_state(…)`
use axum::extract::State;
use trunkline::{Hub, Server};

#[derive(Clone)]
struct Store;

async fn count(State(_store): State<Store>) -> u32 {
    0
}

fn main() {
    let _server = Server::new().hub(Hub::<Store>::new("/shop").method("Count", count));
}
