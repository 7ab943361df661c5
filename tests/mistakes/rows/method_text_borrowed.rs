// remedy: take `String`
use trunkline::debug_method;

#[debug_method]
async fn shout(text: &str) -> String {
    text.to_uppercase()
}

fn main() {}
