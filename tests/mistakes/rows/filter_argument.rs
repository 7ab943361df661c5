// remedy: a filter reads arguments by `HubCall::argument`
use trunkline::{HubCall, HubError, Next, Reply, debug_filter};

#[debug_filter]
async fn audit(_order: String, call: HubCall, next: Next) -> Result<Reply, HubError> {
    next.run(call).await
}

fn main() {}
