// remedy: take `Vec<u32>`
use trunkline::debug_method;

#[debug_method]
async fn total(numbers: &[u32]) -> u32 {
    numbers.iter().sum()
}

fn main() {}
