// remedy: a type that derives `serde::Serialize`
use trunkline::{HubError, debug_method};

struct Receipt {
    total: u32,
}

#[debug_method]
async fn pay(total: u32) -> Result<Receipt, HubError> {
    Ok(Receipt { total })
}

fn main() {}
