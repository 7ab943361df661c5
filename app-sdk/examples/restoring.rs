//! Replays missed messages after a proxy crash: run `cargo run --example restoring -- --listen 127.0.0.1:5000` behind
//! two proxies.
//!
//! Hub `/rooms`: `Enter(room)`; `Say(room, text)` sends `Said(text)` to the members. Kill the proxy of a client that
//! uses the HTTP client of `docs/book/src/clients`: the client rejoins its room through the other proxy and receives
//! the messages that it missed.

#[path = "common/serve.rs"]
mod serve;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use trunkline::{Context, Hub, HubError, Restored, Server};

/// Maximum number of stored messages, over all rooms.
const STORED_MAX: usize = 1000;

/// Added to the client's downtime, because messages sent shortly before the crash may be lost too.
const OVERLAP: Duration = Duration::from_secs(5);

/// A client's room, restored with its other items.
#[derive(Clone)]
struct Room(String);

/// Latest messages with their rooms.
#[derive(Clone, Default)]
struct Recent(Arc<Mutex<VecDeque<(Instant, String, String)>>>);

impl Recent {
    fn store(&self, room: &str, text: &str) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back((Instant::now(), room.to_owned(), text.to_owned()));
        while recent.len() > STORED_MAX {
            recent.pop_front();
        }
    }

    fn sent_within(&self, room: &str, time: Duration) -> Vec<String> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = recent.iter().filter(|(sent_at, sent_to, _)| sent_to == room && sent_at.elapsed() <= time);
        missed.map(|(_, _, text)| text.clone()).collect()
    }
}

async fn enter(ctx: Context, room: String) -> Result<(), HubError> {
    ctx.join(&room).await?;
    ctx.items().insert(Room(room));
    Ok(())
}

async fn say(ctx: Context, State(recent): State<Recent>, room: String, text: String) -> Result<(), HubError> {
    recent.store(&room, &text);
    ctx.clients().group(&room).send("Said", (text,)).await?;
    Ok(())
}

async fn catch_up(ctx: Context, restored: Restored, State(recent): State<Recent>) -> Result<(), HubError> {
    let Some(Room(room)) = ctx.items().get() else { return Ok(()) };
    for text in recent.sent_within(&room, restored.gone_for() + OVERLAP) {
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
