// remedy: parameters: any extractors, then `HubCall`, and `Next` last
use trunkline::{Context, Hub, HubCall, HubError, Next, Reply};

async fn log(call: HubCall, next: Next, _ctx: Context) -> Result<Reply, HubError> {
    next.run(call).await
}

fn main() {
    let _hub: Hub = Hub::new("/chat").filter(log);
}
