// remedy: `?` turns any error into it
use trunkline::debug_method;

#[debug_method]
async fn half(number: u32) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    let _ = number;
    Ok("7".parse::<u32>()?)
}

fn main() {}
