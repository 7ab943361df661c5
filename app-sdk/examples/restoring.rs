//! Fills the gap after a crash: `cargo run --example restoring -- --listen 127.0.0.1:5000`, and two proxies before it.
//!
//! Hub `/rooms`: `Enter(room)` · `Say(room, text)` → members `Said(text)`. Kill the proxy of a client that has the HTTP
//! client of `docs/book/src/clients`: it is back in its room at the other one, and is sent what was said while it was
//! gone.

#[path = "common/serve.rs"]
mod serve;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use trunkline::{Context, Hub, HubError, Restored, Server};

/// Messages that are remembered, of all rooms together.
const REMEMBERED_MAX: usize = 1000;

/// Added to the time for which a client was gone: something that was sent shortly before may be missing, too.
const OVERLAP: Duration = Duration::from_secs(5);

/// Room of a client; it comes back with the client's other items.
#[derive(Clone)]
struct Room(String);

/// Latest messages, with their rooms.
#[derive(Clone, Default)]
struct Recent(Arc<Mutex<VecDeque<(Instant, String, String)>>>);

impl Recent {
    fn remember(&self, room: &str, text: &str) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back((Instant::now(), room.to_owned(), text.to_owned()));
        while recent.len() > REMEMBERED_MAX {
            recent.pop_front();
        }
    }

    fn said_within(&self, room: &str, time: Duration) -> Vec<String> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = recent.iter().filter(|(said_at, place, _)| place == room && said_at.elapsed() <= time);
        missed.map(|(_, _, text)| text.clone()).collect()
    }
}

async fn enter(ctx: Context, room: String) -> Result<(), HubError> {
    ctx.join(&room).await?;
    ctx.items().insert(Room(room));
    Ok(())
}

async fn say(ctx: Context, State(recent): State<Recent>, room: String, text: String) -> Result<(), HubError> {
    recent.remember(&room, &text);
    ctx.clients().group(&room).send("Said", (text,)).await?;
    Ok(())
}

async fn catch_up(ctx: Context, restored: Restored, State(recent): State<Recent>) -> Result<(), HubError> {
    let Some(Room(room)) = ctx.items().get() else { return Ok(()) };
    for text in recent.said_within(&room, restored.gone_for() + OVERLAP) {
        ctx.clients().caller().send("Said", (text,)).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let hub = Hub::new("/rooms")
        .method("Enter", enter)
        .method("Say", say)
        .stateful_reconnect(true)
        .restore_groups(Duration::from_secs(60))
        .on_restored(catch_up)
        .with_state(Recent::default());
    serve::read::<serve::ServeArguments>().serve(Server::new().hub(hub), Router::new()).await
}
