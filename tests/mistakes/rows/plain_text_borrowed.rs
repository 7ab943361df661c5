// remedy: ParametersAreOwnedTakeString
use trunkline::Hub;

async fn shout(text: &str) -> String {
    text.to_uppercase()
}

fn main() {
    let _hub: Hub = Hub::new("/chat").method("Shout", shout);
}
