//! Hub of the canvas. It keeps no client state: the proxies track who is in a room, and the history stores the
//! strokes.

use std::time::Duration;

use axum::extract::State;
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use trunkline::{Clients, Context, GroupChanged, Hub, HubError, Member};

use crate::history::History;
use crate::stroke::Stroke;
use crate::supervision;
use crate::visitor::{Visitor, admit};

/// Grace period: a client that reloads the page still counts as present.
const GRACE: Duration = Duration::from_secs(1);

/// State of the app. Nothing in it is lost in a crash.
#[derive(Debug, Clone)]
pub(crate) struct Canvas {
    pub(crate) history: History,
    pub(crate) is_supervised: bool,
}

/// A client in a room. A person with two tabs appears twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Person {
    connection: String,
    pub(crate) name: Option<String>,
}

/// Sent to a client when an app server begins to serve it.
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
        .on_group_changed(send_changed)
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
    send_served(ctx, canvas).await
}

/// Takes over a client of an app server that died. Proxies reconnect one by one, so clients that listed the room
/// before this client's proxy was back get an update.
async fn take_over(ctx: Context, canvas: State<Canvas>, visitor: Visitor) -> Result<(), HubError> {
    let person = Person { connection: ctx.connection_id().to_owned(), name: Some(visitor.name) };
    ctx.clients().others_in_group(&visitor.room).send("Changed", ([person], [(); 0])).await?;
    send_served(ctx, canvas).await
}

/// Sends a client the identity of its app server. The page then reloads the room's people and strokes, because
/// messages from the dead app server may be lost.
async fn send_served(ctx: Context, State(canvas): State<Canvas>) -> Result<(), HubError> {
    let connection = ctx.connection_id().to_owned();
    let served = Served { server: std::process::id(), connection, can_be_killed: canvas.is_supervised };
    ctx.clients().caller().send("Served", (served,)).await?;
    Ok(())
}

async fn send_changed(change: GroupChanged, clients: Clients) -> Result<(), HubError> {
    let joined: Vec<_> = change.joined.into_iter().map(Person::from).collect();
    let left: Vec<_> = change.left.into_iter().map(Person::from).collect();
    clients.group(&change.group).send("Changed", (joined, left)).await?;
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

/// Shows part of a stroke to others while it is drawn. It is not stored, so a part may get lost.
async fn ink(ctx: Context, visitor: Visitor, part: Stroke) -> Result<(), HubError> {
    ctx.clients().others_in_group(&visitor.room).send("Inked", (part.checked()?,)).await?;
    Ok(())
}

/// Stores a finished stroke. Once the call has returned, the stroke is safe; a caller that got no answer repeats the
/// call.
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

/// Kills this app server immediately, even in the middle of other work.
async fn kill(ctx: Context, State(canvas): State<Canvas>, visitor: Visitor) -> Result<(), HubError> {
    if !canvas.is_supervised {
        return Err(HubError::new("this app server would not be restarted: it runs without --supervised"));
    }
    ctx.clients().all().send("Killed", (&visitor.name, std::process::id())).await?;
    supervision::die().await
}
