//! Hub of the canvas. It keeps nothing of its clients: the proxies know who is in a room, the history what was drawn.

use std::time::Duration;

use axum::extract::State;
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use trunkline::{Clients, Context, GroupChanged, Hub, HubError, Member};

use crate::history::History;
use crate::stroke::Stroke;
use crate::supervision;
use crate::visitor::{Visitor, admit};

/// Time for which somebody who reloads the page still counts as there.
const GRACE: Duration = Duration::from_secs(1);

/// State of the app, which is nothing that could be lost.
#[derive(Debug, Clone)]
pub(crate) struct Canvas {
    pub(crate) history: History,
    pub(crate) is_supervised: bool,
}

/// A client in a room; a person with two tabs is there twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Person {
    connection: String,
    pub(crate) name: Option<String>,
}

/// Notice of an app server to a client that it begins to serve.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Served {
    server: u32,
    connection: String,
    can_be_killed: bool,
}

impl From<Member> for Person {
    fn from(member: Member) -> Self {
        Self { connection: member.connection_id, name: member.user_id }
    }
}

/// Builds the hub with its hooks and methods.
pub(crate) fn hub(canvas: Canvas) -> Hub {
    Hub::new("/canvas")
        .on_negotiate(admit)
        .require_user()
        .on_connected(enter)
        .on_rehomed(take_over)
        .on_group_changed(tell_people)
        .presence_grace(GRACE)
        .method("Move", move_cursor)
        .method("Ink", ink)
        .method("Add", add)
        .method("Clear", clear)
        .method("History", history)
        .method("People", people)
        .method("Kill", kill)
        .with_state(canvas)
}

async fn enter(ctx: Context, canvas: State<Canvas>, visitor: Visitor) -> Result<(), HubError> {
    ctx.join(&visitor.room).await?;
    tell_server(ctx, canvas).await
}

/// Takes a client over from an app server that died. Proxies link again one after the other, so whoever asked for the
/// people of the room before this client's proxy was there learns of it now.
async fn take_over(ctx: Context, canvas: State<Canvas>, visitor: Visitor) -> Result<(), HubError> {
    let person = Person { connection: ctx.connection_id().to_owned(), name: Some(visitor.name) };
    ctx.clients().others_in_group(&visitor.room).send("Changed", ([person], [(); 0])).await?;
    tell_server(ctx, canvas).await
}

/// Tells a client which app server it has now. Its room is the proxies' and its strokes are the history's, so the page
/// asks again for both: messages of the app server that died may have died with it.
async fn tell_server(ctx: Context, State(canvas): State<Canvas>) -> Result<(), HubError> {
    let connection = ctx.connection_id().to_owned();
    let served = Served { server: std::process::id(), connection, can_be_killed: canvas.is_supervised };
    ctx.clients().caller().send("Served", (served,)).await?;
    Ok(())
}

async fn tell_people(change: GroupChanged, clients: Clients) -> Result<(), HubError> {
    let came: Vec<_> = change.joined.into_iter().map(Person::from).collect();
    let left: Vec<_> = change.left.into_iter().map(Person::from).collect();
    clients.group(&change.group).send("Changed", (came, left)).await?;
    Ok(())
}

async fn people(ctx: Context, visitor: Visitor) -> Result<Vec<Person>, HubError> {
    let members = ctx.groups().members(&visitor.room).all().await?;
    Ok(members.into_value().into_iter().map(Person::from).collect())
}

async fn move_cursor(ctx: Context, visitor: Visitor, x: u16, y: u16) -> Result<(), HubError> {
    let moved = (ctx.connection_id(), &visitor.name, x, y);
    ctx.clients().others_in_group(&visitor.room).send("Moved", moved).await?;
    Ok(())
}

/// Shows others a part of a stroke while it is drawn. Nothing of it is kept, so a part may be lost.
async fn ink(ctx: Context, visitor: Visitor, part: Stroke) -> Result<(), HubError> {
    ctx.clients().others_in_group(&visitor.room).send("Inked", (part.checked()?,)).await?;
    Ok(())
}

/// Keeps a whole stroke. The caller who has its answer may rely on it, and repeats a call that was not answered.
async fn add(ctx: Context, State(canvas): State<Canvas>, visitor: Visitor, stroke: Stroke) -> Result<(), HubError> {
    let stroke = stroke.checked()?;
    canvas.history.add(&visitor.room, &visitor.name, stroke.clone()).await?;
    ctx.clients().others_in_group(&visitor.room).send("Added", (stroke,)).await?;
    Ok(())
}

async fn clear(ctx: Context, State(canvas): State<Canvas>, visitor: Visitor) -> Result<(), HubError> {
    canvas.history.clear(&visitor.room, &visitor.name).await?;
    ctx.clients().group(&visitor.room).send("Cleared", (&visitor.name,)).await?;
    Ok(())
}

async fn history(visitor: Visitor, State(canvas): State<Canvas>) -> Result<impl Stream<Item = Stroke>, HubError> {
    Ok(stream::iter(canvas.history.strokes(&visitor.room).await?))
}

/// Kills this app server, in the middle of whatever it does.
async fn kill(ctx: Context, State(canvas): State<Canvas>, visitor: Visitor) -> Result<(), HubError> {
    if !canvas.is_supervised {
        return Err(HubError::new("nobody would start this app server again: it runs without --supervised"));
    }
    ctx.clients().all().send("Killed", (&visitor.name, std::process::id())).await?;
    supervision::die().await
}
