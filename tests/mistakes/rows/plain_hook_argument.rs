// remedy: no client gives
use trunkline::Hub;

async fn hello(_name: String) {}

fn main() {
    let _hub: Hub = Hub::new("/chat").on_connected(hello);
}
