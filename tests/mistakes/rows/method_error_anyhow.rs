// remedy: `?` turns any error into it
use trunkline::debug_method;

#[debug_method]
async fn half(number: u32) -> anyhow::Result<u32> {
    let _ = number;
    anyhow::bail!("no zero")
}

fn main() {}
