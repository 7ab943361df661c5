// remedy: no client gives them arguments
use trunkline::{Context, debug_hook};

#[debug_hook]
async fn hello(_ctx: Context, _name: String) {}

fn main() {}
