// remedy: derive(serde::Serialize)
use trunkline::{Context, HubError};

struct Note;

async fn say(ctx: Context) -> Result<(), HubError> {
    ctx.clients().all().send("Said", (Note,)).await?;
    Ok(())
}

fn main() {}
