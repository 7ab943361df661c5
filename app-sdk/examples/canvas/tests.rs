//! Unit tests of the canvas, with the real hub and no sockets.

use trunkline::testing::{FromArguments, Leaving, TestClient, TestServer};

use crate::history::History;
use crate::hub::{Canvas, Person, Served, hub};
use crate::stroke::Stroke;

struct Room {
    server: TestServer,
    file: std::path::PathBuf,
}

impl Room {
    fn new() -> Self {
        let name = format!("trunkline-canvas-{}-{:?}.jsonl", std::process::id(), std::thread::current().id());
        let file = std::env::temp_dir().join(name);
        let canvas = Canvas { history: History::new(&file), is_supervised: false };
        Self { server: TestServer::fleet(|| hub(canvas.clone()), 2).unwrap(), file }
    }

    async fn enter(&self, name: &str) -> TestClient {
        let mut client = self.server.connect("/canvas").query("room=kitchen").user(name).await.unwrap();
        expect::<(Served,)>(&mut client, "Served").await;
        client
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.file));
    }
}

fn stroke(id: &str) -> Stroke {
    Stroke { id: id.to_owned(), colour: 1, width: 2, points: vec![(0, 0), (1250, 1000)] }
}

/// Waits for an invocation of `target`. `Changed` can arrive at any time and is skipped.
async fn expect<T: FromArguments>(client: &mut TestClient, target: &str) -> T {
    loop {
        let call = client.next().await.unwrap();
        if call.target() != "Changed" {
            assert_eq!(call.target(), target);
            return call.arguments().unwrap();
        }
    }
}

async fn history(client: &mut TestClient) -> Vec<Stroke> {
    let mut strokes = client.stream::<Stroke>("History", ()).await.unwrap();
    let mut all = Vec::new();
    while let Some(stroke) = strokes.next().await {
        all.push(stroke.unwrap());
    }
    all
}

#[tokio::test]
async fn a_stroke_is_shown_while_it_is_drawn_and_stored_when_it_is_finished() {
    let room = Room::new();
    let (mut ann, mut bob) = (room.enter("ann").await, room.enter("bob").await);
    ann.invoke::<()>("Ink", (stroke("a"),)).await.unwrap();
    assert_eq!(expect::<(Stroke,)>(&mut bob, "Inked").await.0, stroke("a"));
    assert_eq!(history(&mut bob).await, []);
    ann.invoke::<()>("Add", (stroke("a"),)).await.unwrap();
    assert_eq!(expect::<(Stroke,)>(&mut bob, "Added").await.0, stroke("a"));
    assert_eq!(history(&mut bob).await, [stroke("a")]);
}

#[tokio::test]
async fn after_a_crash_the_next_app_server_has_all_strokes_without_duplicates() {
    let room = Room::new();
    let mut ann = room.enter("ann").await;
    for id in ["a", "b"] {
        ann.invoke::<()>("Add", (stroke(id),)).await.unwrap();
    }
    room.server.rehome(&mut ann, Leaving::Crash).await.unwrap();
    expect::<(Served,)>(&mut ann, "Served").await;
    ann.invoke::<()>("Add", (stroke("b"),)).await.unwrap();
    ann.invoke::<()>("Add", (stroke("c"),)).await.unwrap();
    assert_eq!(history(&mut ann).await, ["a", "b", "c"].map(stroke));
    let people: Vec<Person> = ann.invoke("People", ()).await.unwrap();
    assert_eq!(people.len(), 1);
    assert_eq!(people[0].name.as_deref(), Some("ann"));
}

#[tokio::test]
async fn a_cleared_room_is_empty_for_all_clients() {
    let room = Room::new();
    let (mut ann, mut bob) = (room.enter("ann").await, room.enter("bob").await);
    ann.invoke::<()>("Add", (stroke("a"),)).await.unwrap();
    expect::<(Stroke,)>(&mut bob, "Added").await;
    ann.invoke::<()>("Clear", ()).await.unwrap();
    assert_eq!(expect::<(String,)>(&mut bob, "Cleared").await.0, "ann");
    assert_eq!(history(&mut bob).await, []);
}

#[tokio::test]
async fn a_stroke_over_a_limit_is_refused_with_the_limit() {
    let room = Room::new();
    let mut ann = room.enter("ann").await;
    for (wrong, allowed) in [
        (Stroke { id: String::new(), ..stroke("a") }, "the id of a stroke has 1 to 40 bytes"),
        (Stroke { colour: 6, ..stroke("a") }, "there are colours below 6 and widths below 3"),
        (Stroke { points: Vec::new(), ..stroke("a") }, "a stroke has 1 to 1000 points"),
        (Stroke { points: vec![(1251, 0)], ..stroke("a") }, "the canvas ends at 1250, 1000"),
    ] {
        assert_eq!(ann.invoke::<()>("Add", (wrong,)).await.unwrap_err().message(), Some(allowed));
    }
    assert_eq!(history(&mut ann).await, []);
}

#[tokio::test]
async fn an_unsupervised_app_server_refuses_to_be_killed() {
    let room = Room::new();
    let mut ann = room.enter("ann").await;
    let refusal = ann.invoke::<()>("Kill", ()).await.unwrap_err();
    assert!(refusal.message().unwrap().contains("runs without --supervised"));
}

#[tokio::test]
async fn a_client_with_an_invalid_name_or_room_is_refused_with_the_rules() {
    let room = Room::new();
    let enter = async |query: &str| room.server.connect("/canvas").query(query).negotiate().await.map(drop);
    for (query, allowed) in [
        ("name=&room=kitchen", "a name has 1 to 24 characters"),
        ("name=ann&room=The%20kitchen", "a room has 1 to 40 small letters, digits and -"),
    ] {
        let refusal = enter(query).await.unwrap_err().to_string();
        assert!(refusal.contains(allowed), "{refusal}");
    }
    enter("name=ann&room=kitchen").await.unwrap();
}
