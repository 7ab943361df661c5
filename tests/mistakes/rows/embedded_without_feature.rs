// remedy: features = ["embedded"]
// only without the feature `embedded`
use trunkline::{Hub, Server};

fn main() {
    let _server = Server::new().hub(Hub::new("/chat")).embedded();
}
