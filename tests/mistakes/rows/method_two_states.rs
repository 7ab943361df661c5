// remedy: write `#[debug_method(state = App)]`
use axum::extract::State;
use trunkline::debug_method;

#[derive(Clone)]
struct Store;

#[derive(Clone)]
struct Prices;

#[debug_method]
async fn buy(State(_store): State<Store>, State(_prices): State<Prices>) {}

fn main() {}
