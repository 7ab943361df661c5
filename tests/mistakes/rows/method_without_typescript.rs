// remedy: derive `trunkline::typescript::TS` for it
use serde::{Deserialize, Serialize};
use trunkline::debug_method;
use trunkline::typescript::TS;

#[derive(Serialize, TS)]
struct Receipt {
    total: u32,
}

#[derive(Deserialize)]
struct Order {
    seats: u32,
}

#[debug_method(typescript)]
async fn book(note: Option<String>, order: Order) -> Receipt {
    Receipt { total: order.seats + note.map_or(0, |_| 1) }
}

fn main() {}
