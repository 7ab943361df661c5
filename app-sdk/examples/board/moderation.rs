//! Moderation: a module of methods with a policy, and a filter that writes an audit log.

use axum::extract::State;
use trunkline::{Context, HubCall, HubError, Methods, Next, Reply};

use crate::board_client::BoardClient;
use crate::state::Board;
use crate::visitor::Visitor;

/// Claim held by moderators.
pub(crate) const ROLE: (&str, &str) = ("role", "moderator");

/// Methods for moderators only.
pub(crate) fn methods() -> Methods<Board> {
    Methods::new().typed_method("Clear", clear).typed_method("Ban", ban).filter(audit).require_claim(ROLE.0, ROLE.1)
}

/// Logs each attempt and its result, including refused calls.
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

/// Bans a user and closes all of the user's connections, on any proxy.
async fn ban(ctx: Context, State(board): State<Board>, user: String) -> Result<(), HubError> {
    board.store.ban(&user).await?;
    ctx.clients().user(&user).close("you were banned").await?;
    Ok(())
}
