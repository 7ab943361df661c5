// remedy: take `Order`, not `Json<_>`
use axum::Json;
use trunkline::debug_method;

#[derive(serde::Deserialize)]
struct Order {
    seats: u32,
}

#[debug_method]
async fn book(Json(order): Json<Order>) -> u32 {
    order.seats
}

fn main() {}
