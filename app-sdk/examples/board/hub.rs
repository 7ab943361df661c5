//! Hub of the board: connection hooks and methods for notes.

use std::time::Duration;

use axum::extract::State;
use futures_util::future::join_all;
use futures_util::{Stream, stream};
use trunkline::{Cause, Context, Hub, HubError, UploadStream};

use crate::board_client::BoardClient;
use crate::note::{NewNote, Note, Person, Vote};
use crate::state::Board;
use crate::visitor::Visitor;
use crate::{login, moderation, pace, presence};

/// Time limit of a poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(20);

/// Builds the hub of the board.
pub(crate) fn hub(board: Board) -> Hub {
    Hub::new("/board")
        .on_negotiate(login::admit)
        .require_user()
        .on_connected(enter)
        .on_disconnected(leave)
        .on_leaving(pace::hand_over)
        .on_rehomed(pace::take_over)
        .filter(pace::limit)
        .typed_method("AddNote", add_note)
        .typed_method("DeleteNote", delete_note)
        .typed_method("History", history)
        .typed_method("Import", import)
        .typed_method("Poll", poll)
        .typed_method("People", people)
        .methods(moderation::methods())
        .with_state(board)
}

async fn enter(ctx: Context, visitor: Visitor) -> Result<(), HubError> {
    ctx.join(&visitor.room).await?;
    ctx.clients().others_in_group(&visitor.room).entered(&visitor.name).await?;
    Ok(())
}

/// Runs once per client, on its app server or, if that server is gone, on its successor.
async fn leave(ctx: Context, visitor: Visitor, cause: Cause) -> Result<(), HubError> {
    ctx.clients().group(&visitor.room).left(&visitor.name, cause.label()).await?;
    Ok(())
}

async fn add_note(ctx: Context, visitor: Visitor, State(board): State<Board>, new: NewNote) -> Result<Note, HubError> {
    let note = board.store.add(&visitor.room, &visitor.name, new).await?;
    ctx.clients().others_in_group(&visitor.room).noted(&note).await?;
    Ok(note)
}

/// Asks the caller for confirmation first.
async fn delete_note(ctx: Context, visitor: Visitor, State(board): State<Board>, id: String) -> Result<bool, HubError> {
    let note = board.store.find(&visitor.room, &id).await?.ok_or_else(|| HubError::new("there is no such note"))?;
    if !ctx.clients().caller().confirm(&format!("Delete “{}”?", note.text)).await? {
        return Ok(false);
    }
    board.store.remove(&visitor.room, &id).await?;
    ctx.clients().group(&visitor.room).removed(&id).await?;
    Ok(true)
}

async fn history(visitor: Visitor, State(board): State<Board>) -> Result<impl Stream<Item = Note>, HubError> {
    Ok(stream::iter(board.store.notes(&visitor.room).await?))
}

/// Reads uploaded notes only as fast as they are stored.
async fn import(
    ctx: Context,
    visitor: Visitor,
    State(board): State<Board>,
    mut new: UploadStream<NewNote>,
) -> Result<u32, HubError> {
    let mut count = 0;
    while let Some(new) = new.next().await {
        let note = board.store.add(&visitor.room, &visitor.name, new?).await?;
        ctx.clients().others_in_group(&visitor.room).noted(&note).await?;
        count += 1;
    }
    Ok(count)
}

/// Polls everyone in the room concurrently, including the caller.
async fn poll(ctx: Context, visitor: Visitor, question: String) -> Result<Vec<Vote>, HubError> {
    let people = presence::in_room(&ctx.groups(), &visitor.room).await?;
    let voting = people.into_iter().map(|Person { connection, name }| {
        let client = ctx.clients().client(connection).timeout(POLL_TIMEOUT);
        let question = &question;
        async move { Vote { name, is_for: client.vote(question).await.ok() } }
    });
    Ok(join_all(voting).await)
}

async fn people(ctx: Context, visitor: Visitor) -> Result<Vec<Person>, HubError> {
    presence::in_room(&ctx.groups(), &visitor.room).await
}
