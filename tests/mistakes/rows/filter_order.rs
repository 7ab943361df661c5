// remedy: the last parameters of a filter are `HubCall` and `Next`
use trunkline::{Context, HubCall, HubError, Next, Reply, debug_filter};

#[debug_filter]
async fn log(call: HubCall, next: Next, _ctx: Context) -> Result<Reply, HubError> {
    next.run(call).await
}

fn main() {}
