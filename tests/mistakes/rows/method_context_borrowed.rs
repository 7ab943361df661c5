// remedy: take `Context` by value
use trunkline::{Context, debug_method};

#[debug_method]
async fn whoami(ctx: &Context) -> String {
    ctx.connection_id().to_owned()
}

fn main() {}
