// remedy: `?` turns any error into it
use axum::http::StatusCode;
use trunkline::debug_method;

#[debug_method]
async fn half(number: u32) -> Result<u32, (StatusCode, String)> {
    let _ = number;
    Err((StatusCode::BAD_REQUEST, "no zero".to_owned()))
}

fn main() {}
