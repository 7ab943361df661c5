// remedy: derive `serde::Serialize`
use futures_util::{Stream, stream};
use trunkline::debug_method;

struct Line;

#[debug_method]
async fn lines() -> impl Stream<Item = Line> {
    stream::iter([Line])
}

fn main() {}
