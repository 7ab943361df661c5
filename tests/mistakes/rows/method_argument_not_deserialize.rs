// remedy: derive `serde::Deserialize`
use trunkline::debug_method;

struct Order {
    seats: u32,
}

#[debug_method]
async fn book(order: Order) -> u32 {
    order.seats
}

fn main() {}
