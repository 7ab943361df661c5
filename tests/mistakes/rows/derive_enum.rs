// remedy: an extractor is a struct
use trunkline::FromContext;

#[derive(FromContext)]
enum Me {
    Known,
    Unknown,
}

fn main() {}
