//! Moderation: a module of methods with a policy, and a filter that writes down who did it.

use axum::extract::State;
use trunkline::{Context, HubCall, HubError, Methods, Next, Reply};

use crate::board_client::BoardClient;
use crate::state::Board;
use crate::visitor::Visitor;

/// The claim of moderators.
pub(crate) const ROLE: (&str, &str) = ("role", "moderator");

/// The methods that are open to moderators only.
pub(crate) fn methods() -> Methods<Board> {
    Methods::new().typed_method("Clear", clear).typed_method("Ban", ban).filter(audit).require_claim(ROLE.0, ROLE.1)
}

/// Writes down each attempt, and whether it succeeded: refusals pass through it as well.
async fn audit(ctx: Context, call: HubCall, next: Next) -> Result<Reply, HubError> {
    let (method, argument) = (call.method().to_owned(), call.argument::<String>(0).and_then(Result::ok));
    let reply = next.run(call).await;
    tracing::info!(method, argument, by = ctx.user_id(), succeeded = reply.is_ok(), "moderation");
    reply
}

async fn clear(ctx: Context, visitor: Visitor, State(board): State<Board>) -> Result<(), HubError> {
    board.store.clear(&visitor.room).await?;
    ctx.clients().group(&visitor.room).cleared(&visitor.name).await?;
    Ok(())
}

/// Closes all connections of a user, wherever they are, and keeps it out.
async fn ban(ctx: Context, State(board): State<Board>, user: String) -> Result<(), HubError> {
    board.store.ban(&user).await?;
    ctx.clients().user(&user).close("you were banned").await?;
    Ok(())
}
