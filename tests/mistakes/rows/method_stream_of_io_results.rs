// remedy: `.map_err(HubError::internal)`
use std::io;

use futures_util::{Stream, stream};
use trunkline::debug_method;

#[debug_method]
async fn lines() -> impl Stream<Item = io::Result<String>> {
    stream::iter([Ok("one".to_owned())])
}

fn main() {}
