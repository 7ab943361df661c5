//! Unit tests of the board, with the real hub and no sockets.

use trunkline::Receivers;
use trunkline::testing::{TestClient, TestServer};
use trunkline::typescript::TypeScript;

use crate::board_client::BoardClient;
use crate::note::{NewNote, Note, Person, Vote};
use crate::store::Store;
use crate::{hub, server};

const TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pages/board.ts");

struct Room {
    server: TestServer,
    file: std::path::PathBuf,
}

impl Room {
    fn new() -> Self {
        let name = format!("trunkline-board-{}-{:?}.jsonl", std::process::id(), std::thread::current().id());
        let file = std::env::temp_dir().join(name);
        Self { server: TestServer::new(server(Store::new(&file)).0).unwrap(), file }
    }

    async fn enter(&self, name: &str) -> TestClient {
        self.server.connect("/board").query("room=kitchen").user(name).await.unwrap()
    }

    async fn enter_as_moderator(&self, name: &str) -> TestClient {
        self.server.connect("/board").query("room=kitchen").user(name).claim("role", "moderator").await.unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.file));
    }
}

fn note(text: &str) -> NewNote {
    NewNote { text: text.to_owned(), x: 1, y: 2 }
}

#[tokio::test]
async fn people_see_each_other_and_new_notes() {
    let room = Room::new();
    let mut ann = room.enter("ann").await;
    let mut bob = room.enter("bob").await;
    assert_eq!(ann.expect::<(String,)>("Entered").await.0, "bob");
    let added: Note = bob.invoke("AddNote", (note("milk"),)).await.unwrap();
    assert_eq!(ann.expect::<(Note,)>("Noted").await.0, added);
    let people: Vec<Person> = ann.invoke("People", ()).await.unwrap();
    assert_eq!(people.len(), 2);
    bob.disconnect().await;
    assert_eq!(ann.expect::<(String, String)>("Left").await.0, "bob");
}

#[tokio::test]
async fn a_note_is_deleted_when_the_caller_confirms() {
    let room = Room::new();
    let mut ann = room.enter("ann").await;
    let added: Note = ann.invoke("AddNote", (note("milk"),)).await.unwrap();
    for (confirms, left) in [(false, 1), (true, 0)] {
        let call = ann.begin("DeleteNote", (&added.id,)).await.unwrap();
        let question = ann.next().await.unwrap();
        assert_eq!(question.arguments::<(String,)>().unwrap().0, "Delete “milk”?");
        ann.answer(&question, confirms).await.unwrap();
        assert_eq!(call.result::<bool>().await.unwrap(), confirms);
        let mut history = ann.stream::<Note>("History", ()).await.unwrap();
        let mut notes = 0;
        while history.next().await.is_some() {
            notes += 1;
        }
        assert_eq!(notes, left);
    }
}

#[tokio::test]
async fn notes_are_imported_and_everyone_votes() {
    let room = Room::new();
    let (mut ann, mut bob) = (room.enter("ann").await, room.enter("bob").await);
    assert_eq!(ann.invoke_uploading::<u32>("Import", (), [note("milk"), note("tea")]).await.unwrap(), 2);
    assert_eq!(bob.expect::<(Note,)>("Noted").await.0.text, "milk");
    ann.on("Vote", |(_,): (String,)| true);
    bob.on("Vote", |(_,): (String,)| false);
    let mut votes: Vec<Vote> = ann.invoke("Poll", ("Tea?",)).await.unwrap();
    votes.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(votes.iter().map(|vote| vote.is_for).collect::<Vec<_>>(), [Some(true), Some(false)]);
}

#[tokio::test]
async fn only_moderators_clear_and_ban() {
    let room = Room::new();
    let (mut ann, mut eve) = (room.enter_as_moderator("ann").await, room.enter("eve").await);
    assert!(eve.invoke::<()>("Clear", ()).await.unwrap_err().to_string().ends_with("because user is unauthorized"));
    ann.invoke::<()>("Clear", ()).await.unwrap();
    assert_eq!(eve.expect::<(String,)>("Cleared").await.0, "ann");
    ann.invoke::<()>("Ban", ("eve",)).await.unwrap();
    assert!(eve.closed().await.unwrap().contains("you were banned"));
}

#[tokio::test]
async fn the_rate_limit_covers_calls_of_unknown_methods() {
    let room = Room::new();
    let mut ann = room.enter("ann").await;
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(ann.invoke::<()>("Nonsense", ()).await.unwrap_err().to_string());
    }
    assert!(answers[0].ends_with("Method does not exist."), "{answers:?}");
    assert!(answers[29].ends_with("slow down, please"), "{answers:?}");
}

#[test]
fn the_types_of_the_page_are_current() {
    let board = server(Store::new("unused")).1;
    let types =
        TypeScript::new().hub("Board", &hub::hub(board)).client("Board", <Receivers as BoardClient>::typescript);
    if std::env::var_os("TRUNKLINE_RENEW").is_some() {
        types.write(TYPES).unwrap();
    }
    types.check(TYPES).unwrap();
}

#[tokio::test]
async fn two_client_results_of_one_client_wait_concurrently() {
    let room = Room::new();
    let mut ann = room.enter("ann").await;
    let milk: Note = ann.invoke("AddNote", (note("milk"),)).await.unwrap();
    let tea: Note = ann.invoke("AddNote", (note("tea"),)).await.unwrap();
    let first = ann.begin("DeleteNote", (&milk.id,)).await.unwrap();
    let second = ann.begin("DeleteNote", (&tea.id,)).await.unwrap();
    let questions = [ann.next().await.unwrap(), ann.next().await.unwrap()];
    ann.answer(&questions[1], false).await.unwrap();
    ann.answer(&questions[0], true).await.unwrap();
    assert!(first.result::<bool>().await.unwrap());
    assert!(!second.result::<bool>().await.unwrap());
}
