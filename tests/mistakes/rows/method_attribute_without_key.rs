// remedy: `state = …`
use trunkline::debug_method;

struct App;

#[debug_method(App)]
async fn ping() {}

fn main() {}
