// remedy: Write `#[claim("…")]`
use trunkline::FromContext;

#[derive(FromContext)]
struct Me {
    #[claim]
    role: String,
}

fn main() {}
