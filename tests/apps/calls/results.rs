//! Methods that ask clients for results. The caller gets every error verbatim.

use trunkline::value::Value;
use trunkline::{Context, Hub, HubError, InvokeError};

use super::gate::Gate;

fn in_words(error: InvokeError) -> HubError {
    HubError::new(error.to_string())
}

async fn ask(ctx: Context, connection_id: String, method: String) -> Result<Value, HubError> {
    ctx.clients().client(connection_id).invoke(&method, ("a question",)).await.map_err(in_words)
}

async fn ask_for_number(ctx: Context, connection_id: String, method: String) -> Result<u32, HubError> {
    ctx.clients().client(connection_id).invoke(&method, ()).await.map_err(in_words)
}

async fn ask_me(ctx: Context, method: String) -> Result<Value, HubError> {
    ctx.clients().caller().invoke(&method, ()).await.map_err(in_words)
}

pub(crate) fn methods(hub: Hub<Gate>) -> Hub<Gate> {
    hub.method("Ask", ask).method("AskForNumber", ask_for_number).method("AskMe", ask_me)
}
