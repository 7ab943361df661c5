// remedy: take owned types
use trunkline::debug_method;

#[debug_method]
async fn first<'a>(words: Vec<&'a str>) -> String {
    words.concat()
}

fn main() {}
