// remedy: leave one of its attributes
use trunkline::FromContext;

#[derive(FromContext)]
struct Me {
    #[user]
    #[claim("sub")]
    id: String,
}

fn main() {}
