//! Tests of derived extractors.

use axum::extract::FromRef;
use trunkline::testing::TestServer;
use trunkline::{Context, FromContext, Hub};

use super::{client, error};

#[derive(Clone)]
struct Store(&'static str);

#[derive(Clone)]
struct App {
    store: Store,
}

impl FromRef<App> for Store {
    fn from_ref(app: &App) -> Self {
        app.store.clone()
    }
}

#[derive(FromContext)]
struct Me {
    #[user]
    id: String,
    #[claim("role")]
    roles: Vec<String>,
    #[claim("level")]
    level: Option<u8>,
    #[header("x-agent")]
    agent: Option<String>,
    #[query("room")]
    room: u32,
    #[state]
    store: Store,
    #[extract]
    ctx: Context,
}

#[derive(FromContext)]
struct Level(#[claim("level")] u8);

#[derive(FromContext)]
struct Agent(#[header("x-agent")] String);

#[derive(FromContext)]
struct Staff {
    #[claim("staff", or = "staff only")]
    _number: u32,
}

#[derive(FromContext)]
struct Nested {
    #[extract]
    level: Level,
}

#[derive(FromContext)]
struct Known(#[user] String);

async fn describe(me: Me, suffix: String) -> String {
    let Me { id, roles, level, agent, room, store, ctx } = me;
    format!("{id} {roles:?} {level:?} {agent:?} {room} {} {}{suffix}", store.0, ctx.user_id() == Some(&id))
}

fn hub() -> Hub {
    Hub::new("/hub")
        .method("Describe", describe)
        .method("Level", async |Level(level): Level| level)
        .method("Nested", async |nested: Nested| nested.level.0)
        .method("Agent", async |Agent(agent): Agent| agent)
        .method("Staff", async |_staff: Staff| ())
        .method("Who", async |known: Option<Known>| known.map(|known| known.0))
        .with_state(App { store: Store("shelf") })
}

#[tokio::test(start_paused = true)]
async fn a_derived_extractor_is_made_of_all_its_parts_and_counts_as_no_argument() {
    let server = TestServer::new(hub()).unwrap();
    let connect = server.connect("/hub").user("ann").claim("role", "editor").claim("role", "admin").claim("level", "7");
    let mut ann = connect.header("x-agent", "test").query("room=4&room=x").await.unwrap();
    let described: String = ann.invoke("Describe", ("!",)).await.unwrap();
    assert_eq!(described, r#"ann ["editor", "admin"] Some(7) Some("test") 4 shelf true!"#);
    assert_eq!(ann.invoke::<u8>("Nested", ()).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn optional_parts_may_be_missing_and_required_ones_refuse_by_name() {
    let (_server, mut ann) = client(hub(), "room=4").await;
    let described: String = ann.invoke("Describe", ("",)).await.unwrap();
    assert_eq!(described, r#"ann ["editor"] None None 4 shelf true"#);
    for (method, refusal) in [
        ("Level", "HubException: the claim `level` is missing"),
        ("Nested", "HubException: the claim `level` is missing"),
        ("Agent", "HubException: the header `x-agent` is missing"),
        ("Staff", "HubException: staff only"),
    ] {
        let text = error(&mut ann, method, ()).await;
        assert!(text.ends_with(refusal), "{method}: {text}");
    }
    let (_server, mut bob) = client(hub(), "").await;
    let text = error(&mut bob, "Describe", ("",)).await;
    assert!(text.ends_with("HubException: `room` is missing in the query"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_cannot_be_read_refuses() {
    let server = TestServer::new(hub()).unwrap();
    let connect = server.connect("/hub").user("ann").claim("level", "high").claim("staff", "x");
    let mut ann = connect.query("room=kitchen").await.unwrap();
    for (method, refusal) in [
        ("Level", "HubException: the claim `level` is invalid: invalid digit found in string"),
        ("Staff", "HubException: staff only"),
    ] {
        let text = error(&mut ann, method, ()).await;
        assert!(text.ends_with(refusal), "{method}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_user_must_log_in() {
    let server = TestServer::new(hub()).unwrap();
    let mut nobody = server.connect("/hub").query("room=4").await.unwrap();
    let text = error(&mut nobody, "Describe", ("",)).await;
    assert!(text.ends_with("HubException: log in first"), "{text}");
    assert_eq!(nobody.invoke::<Option<String>>("Who", ()).await.unwrap(), None);
}
