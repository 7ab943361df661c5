// remedy: not an async function
use trunkline::Hub;

fn add(one: u32, other: u32) -> u32 {
    one + other
}

fn main() {
    let _hub: Hub = Hub::new("/sums").method("Add", add);
}
