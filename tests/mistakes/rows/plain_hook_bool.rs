// remedy: ends in `()` or `Result<(), HubError>`
use trunkline::{Context, Hub};

async fn admit(ctx: Context) -> bool {
    ctx.user_id().is_some()
}

fn main() {
    let _hub: Hub = Hub::new("/chat").on_connected(admit);
}
