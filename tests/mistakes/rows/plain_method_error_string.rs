// remedy: cannot infer type for type parameter `TheErrorMustBeHubError`
use trunkline::Hub;

async fn half(number: u32) -> Result<u32, String> {
    Err(format!("{number} is odd"))
}

fn main() {
    let _hub: Hub = Hub::new("/sums").method("Half", half);
}
