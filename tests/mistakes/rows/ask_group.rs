// remedy: choose a client by `clients().client(connection_id)`
use trunkline::{Context, Hub, HubError};

async fn vote(ctx: Context) -> Result<bool, HubError> {
    Ok(ctx.clients().group("jury").invoke("Vote", ()).await?)
}

fn main() {
    let _hub: Hub = Hub::new("/trial").method("Vote", vote);
}
