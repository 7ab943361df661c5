// remedy: return what `next.run(call).await` returns
use trunkline::{HubCall, HubError, Next, debug_filter};

#[debug_filter]
async fn log(call: HubCall, next: Next) -> Result<(), HubError> {
    next.run(call).await.map(drop)
}

fn main() {}
