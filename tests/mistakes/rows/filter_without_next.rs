// remedy: `call: HubCall, next: Next` as its last parameters
use trunkline::{HubCall, HubError, Reply, debug_filter};

#[debug_filter]
async fn refuse(_call: HubCall) -> Result<Reply, HubError> {
    Err(HubError::new("closed on Sundays"))
}

fn main() {}
