// remedy: await occurs here, with `name` maybe used later
use std::rc::Rc;

use trunkline::{Context, HubError, debug_method};

#[debug_method]
async fn say(ctx: Context, name: String) -> Result<(), HubError> {
    let name = Rc::new(name);
    ctx.clients().all().send("Said", (name.as_str(),)).await?;
    Ok(())
}

fn main() {}
