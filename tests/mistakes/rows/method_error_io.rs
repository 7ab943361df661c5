// remedy: `?` turns any error into it
use trunkline::debug_method;

#[debug_method]
async fn half(number: u32) -> std::io::Result<String> {
    let _ = number;
    std::fs::read_to_string("note.txt")
}

fn main() {}
