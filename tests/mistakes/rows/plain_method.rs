// remedy: `#[trunkline::debug_method]` on the function says which
use trunkline::{Context, Hub};

async fn whoami(ctx: &Context) -> String {
    ctx.connection_id().to_owned()
}

fn main() {
    let _hub: Hub = Hub::new("/chat").method("WhoAmI", whoami);
}
