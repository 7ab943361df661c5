//! The hub: who comes and goes, and what is done with notes.

use std::time::Duration;

use axum::extract::State;
use futures_util::future::join_all;
use futures_util::{Stream, stream};
use trunkline::{Cause, Context, Hub, HubError, UploadStream};

use crate::board_client::BoardClient;
use crate::login;
use crate::moderation;
use crate::note::{NewNote, Note, Person, Vote};
use crate::pace;
use crate::presence;
use crate::state::Board;
use crate::visitor::Visitor;

/// Time that everybody has to vote.
const POLL_TIMEOUT: Duration = Duration::from_secs(20);

/// The hub of the board.
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

/// Runs once for each client, wherever its end is known: here, or at the app server that had it before.
async fn leave(ctx: Context, visitor: Visitor, cause: Cause) -> Result<(), HubError> {
    ctx.clients().group(&visitor.room).left(&visitor.name, cause.label()).await?;
    Ok(())
}

async fn add_note(ctx: Context, visitor: Visitor, State(board): State<Board>, new: NewNote) -> Result<Note, HubError> {
    let note = board.store.add(&visitor.room, &visitor.name, new).await?;
    ctx.clients().others_in_group(&visitor.room).noted(&note).await?;
    Ok(note)
}

/// Asks its caller first.
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

/// Takes notes as fast as they can be stored.
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

/// Asks everybody in the room at once, the caller too.
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
