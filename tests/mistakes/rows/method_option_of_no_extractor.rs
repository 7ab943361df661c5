// remedy: implements `trunkline::FromContext`
use trunkline::debug_method;

struct Me;

#[debug_method]
async fn peek(me: Option<Me>) -> bool {
    me.is_some()
}

fn main() {}
