// remedy: write `async fn`
use trunkline::debug_method;

#[debug_method]
fn add(one: u32, other: u32) -> u32 {
    one + other
}

fn main() {}
