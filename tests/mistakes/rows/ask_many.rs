// remedy: only a single client can return a result
use trunkline::{Context, HubError};

trunkline::client_interface! {
    trait Player {
        fn roll_dice(sides: u32) -> u32 = "RollDice";
    }
}

async fn roll(ctx: Context) -> Result<u32, HubError> {
    Ok(ctx.clients().all().roll_dice(6).await?)
}

fn main() {}
