// remedy: write one argument as `(argument,)`
use trunkline::{Context, HubError};

async fn say(ctx: Context, text: String) -> Result<(), HubError> {
    ctx.clients().all().send("Said", text).await?;
    Ok(())
}

fn main() {}
