// remedy: return `Err(HubError::new("…"))`
use trunkline::{Context, debug_hook};

#[debug_hook]
async fn admit(ctx: Context) -> bool {
    ctx.user_id().is_some()
}

fn main() {}
