// remedy: expected `or = 
use trunkline::FromContext;

#[derive(FromContext)]
struct Me {
    #[user(default = "nobody")]
    id: String,
}

fn main() {}
