// remedy: name the type of the result
use trunkline::{Context, HubError};

async fn ask(ctx: Context, player: String) -> Result<(), HubError> {
    let _answer = ctx.clients().client(player).invoke("RollDice", (6,)).await?;
    Ok(())
}

fn main() {}
