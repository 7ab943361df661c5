//! A few simulated clients per proxy, which use the app like people and reconnect after a loss.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::app::App;
use crate::http_request::post;
use crate::hub_client::HubClient;
use crate::plan::{CLIENTS_PER_PROXY, Plan};
use crate::process::print_note;

const NAMES: [&str; 6] = ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Tony"];

const LINES: [&str; 8] = [
    "good morning",
    "did you see the new board?",
    "I am connected to the other proxy",
    "coffee?",
    "this message crossed one link",
    "back in a moment",
    "it works here",
    "who is still there?",
];

/// Initial room of the page, also used by the clients.
const ROOM: &str = "kitchen";

const CANVAS_ROOM: &str = "lobby";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two connections.
const ABSENCE: Duration = Duration::from_secs(3);

/// Steps of a client before it disconnects for a moment.
const STEPS: usize = 12;

/// Maximum notes of one client on the board; beyond it the client deletes its oldest note.
const NOTES_MAX: usize = 3;

pub(crate) async fn run(plan: &Plan) -> Infallible {
    let proxies = plan.proxies.iter().map(|proxy| proxy.listen);
    let places = proxies.flat_map(|proxy| [proxy; CLIENTS_PER_PROXY]).enumerate();
    join_all(places.map(|(index, proxy)| Robot { index, app: plan.app, server: plan.listen, proxy }.run())).await;
    pending().await
}

#[derive(Debug)]
struct Robot {
    index: usize,
    app: App,
    server: SocketAddr,
    proxy: SocketAddr,
}

/// Notes pinned by a client, oldest first.
type Notes = VecDeque<Value>;

impl Robot {
    async fn run(self) {
        // Delays the clients by different times.
        sleep(Duration::from_millis(300) * u32::try_from(self.index).unwrap_or_default()).await;
        let mut is_reported = false;
        loop {
            // A lost connection is expected: users of the demo stop proxies and app servers.
            match timeout(CONNECT_TIMEOUT, self.connect()).await {
                Ok(Ok(client)) => drop(self.visit(client).await),
                Ok(Err(error)) if !is_reported => {
                    is_reported = true;
                    print_note(&format!("traffic: {} can't connect, and tries again: {error:#}", self.name()));
                }
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(ABSENCE).await;
        }
    }

    fn name(&self) -> String {
        let name = NAMES.get(self.index % NAMES.len()).copied().unwrap_or("somebody");
        match self.index / NAMES.len() {
            0 => name.to_owned(),
            round => format!("{name} {}", round + 1),
        }
    }

    async fn connect(&self) -> anyhow::Result<HubClient> {
        let target = match self.app {
            App::Chat => "/chat".to_owned(),
            App::Status => "/statusHub".to_owned(),
            App::Streaming => "/streams".to_owned(),
            App::Canvas => {
                let query = format!("room={CANVAS_ROOM}&name={}", self.name().replace(' ', "+"));
                let answer = post(self.proxy, &format!("/canvas/negotiate?negotiateVersion=1&{query}"), "").await?;
                let answer: Value = serde_json::from_str(&answer)?;
                let token = answer.get("connectionToken").and_then(Value::as_str).context("no connection token")?;
                format!("/canvas?{query}&id={token}")
            }
            App::Board => {
                let login = json!({"name": self.name()}).to_string();
                let token = post(self.server, "/api/login", &login).await?;
                format!("/board?room={ROOM}&access_token={token}")
            }
        };
        HubClient::connect(self.proxy, &target).await
    }

    /// Uses one connection until the visit ends or the connection is lost.
    async fn visit(&self, mut client: HubClient) -> anyhow::Result<()> {
        match self.app {
            App::Chat => client.call("JoinRoom", json!([ROOM])).await?,
            // Notes from earlier connections still exist.
            App::Board => {
                client
                    .send(&json!({"type": 4, "invocationId": "history", "target": "History", "arguments": []}))
                    .await?
            }
            App::Canvas | App::Status | App::Streaming => {}
        }
        let mut notes = Notes::new();
        for step in 0..STEPS {
            self.act(&mut client, step, &mut notes).await?;
            let next = Instant::now() + self.pause(step);
            loop {
                let message = tokio::select! {
                    () = sleep_until(next) => break,
                    message = client.next() => message?,
                };
                self.react(&mut client, &message, &mut notes).await?;
            }
        }
        Ok(())
    }

    /// Differs per client and step. Stays below 15 s, when a silent client has to ping.
    fn pause(&self, step: usize) -> Duration {
        let spread = (self.index * 7 + step * 5) % 6;
        Duration::from_secs(3) + Duration::from_millis(700) * u32::try_from(spread).unwrap_or_default()
    }

    async fn act(&self, client: &mut HubClient, step: usize, notes: &mut Notes) -> anyhow::Result<()> {
        let line = LINES.get((self.index * 3 + step) % LINES.len()).copied().unwrap_or("hello");
        match self.app {
            App::Chat if step % 4 == 3 => client.call("SendToRoom", json!([ROOM, self.name(), line])).await,
            App::Chat => client.call("SendMessage", json!([self.name(), line])).await,
            App::Status => client.call("SendPing", json!([self.name()])).await,
            App::Board if notes.len() >= NOTES_MAX => client.call("DeleteNote", json!([notes.pop_front()])).await,
            App::Board => client.send(&self.new_note(line, step)).await,
            App::Canvas => {
                let stroke = self.new_stroke(step);
                client.call("Move", json!([stroke.pointer("/points/0/0"), stroke.pointer("/points/0/1")])).await?;
                client.call("Add", json!([stroke])).await
            }
            App::Streaming if step.is_multiple_of(2) => {
                client
                    .send(&json!({"type": 4, "invocationId": "count", "target": "Counter", "arguments": [8, 250]}))
                    .await
            }
            App::Streaming => upload(client).await,
        }
    }

    /// Wave, placed differently for each client and step.
    fn new_stroke(&self, step: usize) -> Value {
        let (x, y) = ((self.index * 190 + step * 70) % 1000, (self.index * 130 + step * 240) % 900);
        let rises = [40, 0, 25, 70, 90, 60, 20, 10, 45];
        let points: Vec<_> = rises.iter().enumerate().map(|(at, rise)| (x + at * 25, y + rise)).collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let id = format!("{}-{}", self.name(), now.as_millis());
        json!({"id": id, "colour": self.index % 6, "width": 1, "points": points})
    }

    fn new_note(&self, line: &str, step: usize) -> Value {
        let (x, y) = ((self.index * 13 + step * 7) % 75, (self.index * 11 + step * 17) % 75);
        json!({"type": 1, "invocationId": "note", "target": "AddNote", "arguments": [{"text": line, "x": x, "y": y}]})
    }

    async fn react(&self, client: &mut HubClient, message: &Value, notes: &mut Notes) -> anyhow::Result<()> {
        let word = |name| message.get(name).and_then(Value::as_str);
        let kind = message.get("type").and_then(Value::as_u64);
        match (kind, word("target"), word("invocationId")) {
            (Some(1), Some("who"), _) => client.call("SendPing", json!([self.name()])).await,
            // A question about its own note, or a poll: some answer no.
            (Some(1), Some(question), Some(id)) => {
                let answer = question == "Confirm" || !self.index.is_multiple_of(3);
                client.send(&json!({"type": 3, "invocationId": id, "result": answer})).await
            }
            (Some(2), _, Some("history")) => {
                let is_own = message.pointer("/item/author").and_then(Value::as_str) == Some(&self.name());
                notes.extend(message.pointer("/item/id").filter(|_| is_own).cloned());
                Ok(())
            }
            (Some(3), _, Some("note")) => {
                notes.extend(message.pointer("/result/id").cloned());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Streams a few numbers to the app server, which returns their average.
async fn upload(client: &mut HubClient) -> anyhow::Result<()> {
    let call = json!({"type": 1, "invocationId": "average", "target": "Average", "arguments": [], "streamIds": ["up"]});
    client.send(&call).await?;
    for number in 0..5 {
        client.send(&json!({"type": 2, "invocationId": "up", "item": f64::from(number)})).await?;
    }
    client.send(&json!({"type": 3, "invocationId": "up"})).await
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};

    use super::*;

    fn robot(index: usize, app: App) -> Robot {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Robot { index, app, server: nowhere, proxy: nowhere }
    }

    #[test]
    fn each_client_has_a_unique_name() {
        let names: std::collections::BTreeSet<_> = (0..20).map(|index| robot(index, App::Chat).name()).collect();
        assert_eq!(names.len(), 20);
        assert!(names.contains("Ada") && names.contains("Ada 2"), "{names:?}");
    }

    #[test]
    fn a_client_is_never_silent_for_as_long_as_a_proxy_waits() {
        let pauses = (0..20).flat_map(|index| (0..STEPS).map(move |step| robot(index, App::Chat).pause(step)));
        assert!(pauses.max().unwrap() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_note_stays_on_the_board_until_there_are_too_many_of_one_client() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut hub = tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap();
            hub.send("{}\u{1e}".into()).await.unwrap();
            let mut heard = Vec::new();
            while let Some(Ok(message)) = hub.next().await {
                heard.push(message.into_text().unwrap().to_string());
            }
            heard
        });
        let mut client = HubClient::connect(address, "/board").await.unwrap();
        let (ada, mut notes) = (robot(0, App::Board), Notes::new());
        let history = |author: &str, id: &str| json!({"type": 2, "invocationId": "history", "item": {"author": author, "id": id}});
        for message in [
            history("Ada", "first"),
            history("somebody", "not hers"),
            json!({"type": 3, "invocationId": "note", "result": {"id": "second"}}),
        ] {
            ada.react(&mut client, &message, &mut notes).await.unwrap();
        }
        ada.act(&mut client, 0, &mut notes).await.unwrap();
        notes.push_back(json!("third"));
        ada.act(&mut client, 1, &mut notes).await.unwrap();
        let question = json!({"type": 1, "target": "Confirm", "invocationId": "7", "arguments": ["Delete?"]});
        ada.react(&mut client, &question, &mut notes).await.unwrap();
        drop(client);
        let heard = server.await.unwrap();
        assert!(heard[1].contains("AddNote"), "{heard:?}");
        assert!(heard[2].contains("DeleteNote") && heard[2].contains("[\"first\"]"), "{heard:?}");
        assert!(heard[3].contains("\"result\":true"), "{heard:?}");
        assert_eq!(notes, ["second", "third"]);
    }
}
