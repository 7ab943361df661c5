// remedy: return `Err(HubError::new("…"))` to close the client
use trunkline::{Context, debug_hook};

#[debug_hook]
async fn admit(ctx: Context) -> bool {
    ctx.user_id().is_some()
}

fn main() {}
