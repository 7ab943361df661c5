// remedy: expected `Policy`
use trunkline::Hub;

async fn clear() {}

fn main() {
    let _hub: Hub = Hub::new("/pages").guarded("Clear", "admin", clear);
}
