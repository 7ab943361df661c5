//! Methods that ask clients for results. Whatever goes wrong is told to the caller, word for word.

use trunkline::value::Value;
use trunkline::{Context, Hub, HubError, InvokeError};

use super::gate::Gate;

fn in_words(error: InvokeError) -> HubError {
    HubError::new(error.to_string())
}

/// Asks a client for anything.
async fn ask(ctx: Context, connection_id: String, method: String) -> Result<Value, HubError> {
    ctx.clients().client(connection_id).invoke(&method, ("a question",)).await.map_err(in_words)
}

/// Asks a client for a number.
async fn ask_for_number(ctx: Context, connection_id: String, method: String) -> Result<u32, HubError> {
    ctx.clients().client(connection_id).invoke(&method, ()).await.map_err(in_words)
}

/// Asks its own caller.
async fn ask_me(ctx: Context, method: String) -> Result<Value, HubError> {
    ctx.clients().caller().invoke(&method, ()).await.map_err(in_words)
}

/// Lets the error take its way: a client's own text is shown, nothing else.
async fn ask_me_plainly(ctx: Context, method: String) -> Result<Value, HubError> {
    Ok(ctx.clients().caller().invoke(&method, ()).await?)
}

pub(crate) fn methods(hub: Hub<Gate>) -> Hub<Gate> {
    hub.method("Ask", ask)
        .method("AskForNumber", ask_for_number)
        .method("AskMe", ask_me)
        .method("AskMePlainly", ask_me_plainly)
}
