// remedy: take several arguments as one struct that derives `serde::Deserialize`
use trunkline::debug_method;

#[debug_method]
async fn sum(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8, j: u8, k: u8) -> u8 {
    a + b + c + d + e + f + g + h + i + j + k
}

fn main() {}
