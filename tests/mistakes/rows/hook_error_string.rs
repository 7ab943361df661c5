// remedy: return `Err(HubError::new("…"))`
use trunkline::{Context, debug_hook};

#[debug_hook]
async fn admit(ctx: Context) -> Result<(), String> {
    ctx.user_id().map(drop).ok_or_else(|| "who are you?".to_owned())
}

fn main() {}
