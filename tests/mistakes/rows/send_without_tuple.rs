// remedy: a single argument goes into a tuple too
use trunkline::{Context, HubError};

async fn say(ctx: Context, text: String) -> Result<(), HubError> {
    ctx.clients().all().send("Said", text).await?;
    Ok(())
}

fn main() {}
