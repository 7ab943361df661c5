// remedy: name it, without `impl`
use trunkline::debug_method;

#[debug_method]
async fn shout(text: impl Into<String> + Send) -> String {
    text.into().to_uppercase()
}

fn main() {}
