// remedy: there is no `Context`, because no client calls it
use trunkline::{Context, Hub, HubError};

async fn tick(ctx: Context) -> Result<(), HubError> {
    ctx.clients().all().send("Tick", ()).await?;
    Ok(())
}

fn main() {
    let _hub: Hub = Hub::new("/clock").exclusively("tick", tick);
}
