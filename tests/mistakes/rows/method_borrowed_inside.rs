// remedy: take `String` instead of `&str`
use trunkline::debug_method;

#[debug_method]
async fn greet(name: Option<&str>) -> String {
    name.unwrap_or("nobody").to_owned()
}

fn main() {}
