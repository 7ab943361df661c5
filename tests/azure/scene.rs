//! A node, a scripted app server behind it, and admitted clients.

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::Message;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{Fixture, named};

use crate::dial_in::{DialIn, client_token};
use crate::frame::{brings, data, kind, kind_of, no_ext, payloads};
use crate::scripted::{Event, Scripted};
use crate::value::{Value, list};

pub(crate) const HUB: &str = "bench";

/// Target of messages that tests send.
pub(crate) const TARGET: &str = "Message";

/// Client and its place at the scripted app server.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) socket: RawClient,
    pub(crate) id: String,
    pub(crate) home: usize,
    pub(crate) opened: Value,
}

impl Member {
    /// Text of the next message to [`TARGET`].
    pub(crate) async fn text(&mut self) -> Result<String> {
        match self.socket.next_message().await? {
            Message::Text(text) => {
                let record: Json = serde_json::from_str(text.trim_end_matches('\u{1e}'))?;
                ensure!(record["target"] == TARGET, "{record}");
                Ok(record["arguments"][0].as_str().context("a text")?.to_owned())
            }
            Message::Binary(bytes) => packed_text(&bytes),
            other => anyhow::bail!("a message should come, but {other:?} did"),
        }
    }
}

/// First argument of a MessagePack invocation, a text.
fn packed_text(bytes: &[u8]) -> Result<String> {
    let mut rest = bytes.to_vec();
    let whole = crate::frame::take_frame(&mut rest)?.context("a whole message")?;
    let call = crate::frame::message(&whole)?;
    Ok(call.at(4).at(0).as_text().context("a text")?.to_owned())
}

pub(crate) struct Scene {
    pub(crate) dial_in: DialIn,
    pub(crate) server: Scripted,
}

impl Scene {
    pub(crate) async fn open(fixture: &Fixture, connections: usize) -> Result<Self> {
        let dial_in = DialIn::open(fixture).await?;
        let server = Scripted::dial(&dial_in, HUB, "server-a", connections).await?;
        Ok(Self { dial_in, server })
    }

    pub(crate) async fn join(&mut self, claims: &Json) -> Result<Member> {
        self.join_by("json", claims).await
    }

    pub(crate) async fn join_by(&mut self, protocol: &str, claims: &Json) -> Result<Member> {
        join(&self.dial_in, &mut self.server, protocol, claims).await
    }

    pub(crate) async fn join_as(&mut self, user: &str) -> Result<Member> {
        self.join(&json!({ "nameid": user })).await
    }

    /// Sends a text to one client over its own server connection; it must be the client's next message.
    pub(crate) async fn reaches(&mut self, member: &mut Member, text: &str) -> Result<()> {
        self.server.send(member.home, &to(&[&member.id], text))?;
        let came = member.text().await?;
        ensure!(came == text, "{text} should come, but {came} did");
        Ok(())
    }

    /// Sends a message from a client, which must arrive over its server connection.
    pub(crate) async fn receives(&mut self, member: &mut Member, text: &str) -> Result<()> {
        let said = invocation(text);
        member.socket.send_text(said.clone()).await?;
        let is_data =
            |_, event: &Event| matches!(event, Event::Frame(frame) if kind_of(frame) == kind::CONNECTION_DATA);
        let (place, event) = self.server.find(is_data).await?;
        let Event::Frame(frame) = event else { anyhow::bail!("just found") };
        ensure!(place == member.home, "it comes by {place} instead of {}", member.home);
        ensure!(brings(&frame, &member.id, said.as_bytes(), data::INVOCATION), "{frame:?}");
        Ok(())
    }
}

/// Negotiates for a client and admits it at this app server.
pub(crate) async fn join(dial_in: &DialIn, server: &mut Scripted, protocol: &str, claims: &Json) -> Result<Member> {
    join_with(dial_in, server, protocol, &client_token(&server.hub, claims)?).await
}

pub(crate) async fn join_with(dial_in: &DialIn, server: &mut Scripted, protocol: &str, token: &str) -> Result<Member> {
    let answer = dial_in.negotiate(&server.hub, "", token).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let secret = answer.json()?["connectionToken"].as_str().context("a token")?.to_owned();
    let path = format!("/client/?hub={}&id={secret}", server.hub);
    let mut socket = dial_in.client(&path, token).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    socket.send_text(format!("{{\"protocol\":\"{protocol}\",\"version\":1}}\u{1e}")).await?;
    let (id, home, opened) = server.admit().await?;
    ensure!(answer.json()?["connectionId"] == id, "{answer:?} is not of {id}");
    let welcome = named("the answer to the handshake".into(), socket.next_message()).await?;
    ensure!(welcome.into_data().as_ref() == b"{}\x1e", "no welcome");
    Ok(Member { socket, id, home, opened })
}

/// Message for clients by their ids.
pub(crate) fn to(ids: &[&str], text: &str) -> Value {
    let ids = ids.iter().map(|id| Value::from(*id)).collect::<Vec<_>>();
    list![kind::MULTI_CONNECTION_DATA, ids, payloads(TARGET, text), no_ext()]
}

pub(crate) fn invocation(text: &str) -> String {
    format!("{{\"type\":1,\"target\":\"Say\",\"arguments\":[\"{text}\"]}}\u{1e}")
}

/// Asserts that `frame`, sent over server connection `place`, gives members exactly these texts.
pub(crate) async fn spreads<const N: usize>(
    server: &Scripted,
    place: usize,
    frame: &Value,
    members: &mut [Member],
    expected: [&[&str]; N],
) -> Result<()> {
    server.send(place, frame)?;
    receive(server, place, members, expected).await.with_context(|| format!("{frame:?}"))
}

/// Asserts that members receive these texts before a fence that is sent over server connection `place`.
pub(crate) async fn receive<const N: usize>(
    server: &Scripted,
    place: usize,
    members: &mut [Member],
    expected: [&[&str]; N],
) -> Result<()> {
    ensure!(members.len() == expected.len(), "one list of texts for each member");
    let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
    server.send(place, &to(&ids, FENCE))?;
    for (member, expected) in members.iter_mut().zip(expected) {
        let mut seen = Vec::new();
        loop {
            match member.text().await? {
                text if text == FENCE => break,
                text => seen.push(text),
            }
        }
        ensure!(seen == *expected, "{} got {seen:?} where {expected:?} were due", member.id);
    }
    Ok(())
}

/// Text after everything that a test sends.
const FENCE: &str = "the fence";
