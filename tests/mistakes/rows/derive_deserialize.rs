// remedy: AnExtractorMustNotBeDeserialize
use trunkline::FromContext;

#[derive(FromContext, serde::Deserialize)]
struct Me {
    #[user]
    id: String,
}

fn main() {}
