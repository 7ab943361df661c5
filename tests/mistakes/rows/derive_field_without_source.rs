// remedy: say where this field comes from
use trunkline::FromContext;

#[derive(FromContext)]
struct Me {
    #[user]
    id: String,
    name: String,
}

fn main() {}
