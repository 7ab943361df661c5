// remedy: name the types
use trunkline::debug_method;

#[debug_method]
async fn echo<T: serde::Serialize + Send>(value: T) -> T {
    value
}

fn main() {}
