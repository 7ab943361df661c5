// remedy: `axum::extract::FromRef`
use axum::extract::State;
use trunkline::debug_method;

#[derive(Clone)]
struct App;

#[derive(Clone)]
struct Store;

#[debug_method(state = App)]
async fn count(State(_store): State<Store>) -> u32 {
    0
}

fn main() {}
