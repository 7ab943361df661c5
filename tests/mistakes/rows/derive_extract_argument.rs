// remedy: derive `trunkline::FromContext` for your own type
use trunkline::FromContext;

#[derive(FromContext)]
struct Me {
    #[extract]
    name: String,
}

fn is_extractor<T: FromContext<()>>() {}

fn main() {
    is_extractor::<Me>();
}
