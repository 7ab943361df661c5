// remedy: remove all but one of these attributes
use trunkline::FromContext;

#[derive(FromContext)]
struct Me {
    #[user]
    #[claim("sub")]
    id: String,
}

fn main() {}
