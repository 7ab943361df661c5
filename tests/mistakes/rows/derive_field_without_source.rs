// remedy: the source of this field is missing
use trunkline::FromContext;

#[derive(FromContext)]
struct Me {
    #[user]
    id: String,
    name: String,
}

fn main() {}
