// remedy: `?` turns any error into it
use trunkline::debug_method;

#[debug_method]
async fn half(number: u32) -> Result<u32, String> {
    let _ = number;
    Err("no zero".to_owned())
}

fn main() {}
