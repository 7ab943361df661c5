// remedy: `State<T>`
use std::sync::Arc;

use trunkline::debug_method;

struct Store;

#[debug_method]
async fn count(store: Arc<Store>) -> usize {
    Arc::strong_count(&store)
}

fn main() {}
