//! Replay of recorded conversations: plays the app server's and the clients' parts against a node, and compares the
//! results with the recorded ones, apart from ids, times, tokens and keep-alives.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::dial_in::long_claim;
use trunkline_tests::harness::dotnet::azure_sdk_folder;
use trunkline_tests::harness::http_client::ask;
use trunkline_tests::harness::http_transport::{CarriedClient, EventStream};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{named, run_test};

use crate::dial_in::{DialIn, KEY, server_token, signed};
use crate::frame::{data_kind, data_kind_of, framed, hub_messages, hub_type, kind, kind_of, message, take_frame};
use crate::record::{Step, read};
use crate::scripted::{Dial, Event, Scripted};
use crate::value::Value;

const HUB_PING: i64 = 6;

const HUB_CLOSE: i64 = 7;

/// Time claims, which differ in each token.
const TIMES: [&str; 3] = ["nbf", "exp", "iat"];

/// Replays one recording. It ignores these deliberate differences:
///
/// | difference | reason |
/// |---|---|
/// | kinds of hub messages | the recording service set none; where the node does, it must be correct |
/// | whether hub messages share a frame | the node chooses boundaries between whole messages |
/// | a client's close message, and the app's answer | the node itself ends the connection, and reports this with type 5 |
/// | app server named in a forwarded completion | the SDK uses the invocation's id; the node names the app server that asked |
/// | error texts | the node has its own |
/// | pings of clients and app servers | the node keeps its clients alive itself |
/// | `id` and `access_token` in the query | client secrets stop at the node, as at all our nodes |
/// | WebSocket headers, `Authorization` | belong to the client's socket; the login arrives as claims |
/// | `X-Forwarded-For`, `Asrs-Instance-Id` | missing in the recording service, required by the reference |
/// | transports in the negotiate response | the recording service had only WebSockets |
/// | nil or "" for no error | the SDK accepts both |
/// | `id` as connection token in a login refresh | the node's token is a separate secret |
/// | login times | shifted, so that no login has expired |
struct Replay {
    dial_in: DialIn,
    server: Scripted,
    upgrades: Vec<(String, String)>,
    /// Place of each recorded server connection, by name.
    places: HashMap<String, usize>,
    clients: HashMap<String, Player>,
    pending: Option<(String, String, Json)>,
    /// App server of each client, by the client's recorded id.
    homes: HashMap<String, String>,
    compared: usize,
}

/// State of a replayed client.
struct Player {
    socket: Option<PlayerSocket>,
    /// Id assigned by the node; the map's key is the recorded one.
    id: String,
    secret: String,
    protocol: String,
    /// Recorded name of its server connection, and that connection's place in the replay.
    home: Option<(String, usize)>,
    /// Hub messages that arrived together with others: to the client, and from it.
    due_down: Vec<Vec<u8>>,
    due_up: Vec<Vec<u8>>,
    /// Whether the client sent a close message.
    has_left: bool,
}

enum PlayerSocket {
    Web(Box<RawClient>),
    Polls(CarriedClient),
    Events(CarriedClient, EventStream),
}

impl PlayerSocket {
    async fn send(&mut self, is_binary: bool, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::Web(socket) if is_binary => socket.send(Message::binary(bytes)).await,
            Self::Web(socket) => socket.send(Message::text(String::from_utf8(bytes)?)).await,
            Self::Polls(client) | Self::Events(client, _) => {
                let answer = client.send(std::str::from_utf8(&bytes)?).await?;
                ensure!(answer.status == 200, "{answer:?}");
                Ok(())
            }
        }
    }

    async fn next(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Web(socket) => Ok(socket.next_message().await?.into_data().to_vec()),
            Self::Polls(client) => loop {
                let answer = client.poll().await?;
                ensure!(answer.status == 200, "{answer:?}");
                if !answer.body.is_empty() {
                    return Ok(answer.body.into_bytes());
                }
            },
            Self::Events(_, stream) => {
                let event = stream.until("\r\n\r\n").await?;
                let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                Ok(data.join("\n").into_bytes())
            }
        }
    }
}

impl Replay {
    async fn play(mut self, steps: &[Step], until: usize) -> Result<usize> {
        self.find_homes(steps);
        for (number, step) in steps.iter().take(until).enumerate() {
            let step_of = || format!("step {number}: {}", shown(step));
            named(step_of(), self.step(step)).await.with_context(step_of)?;
        }
        let left: Vec<_> = self.left().await?;
        ensure!(left.is_empty(), "the record had nothing like this: {left:?}");
        Ok(self.compared)
    }

    /// Determines the first app server of each client, so that the replay leads it there too.
    fn find_homes(&mut self, steps: &[Step]) {
        let upgrades = steps.iter().filter_map(|step| match step {
            Step::ServerUpgrade { server, .. } => Some(server.clone()),
            _ => None,
        });
        let servers: Vec<String> = upgrades.collect();
        for step in steps {
            let Step::FromService { connection, frame } = step else { continue };
            if kind_of(frame) == kind::OPEN_CONNECTION {
                let number = connection.trim_start_matches("server-").parse::<usize>().unwrap_or_default();
                let server = number.checked_sub(1).and_then(|at| servers.get(at)).cloned().unwrap_or_default();
                self.homes.entry(frame.at(1).as_text().unwrap_or_default().into()).or_insert(server);
            }
        }
        let mut distinct = servers;
        distinct.sort();
        distinct.dedup();
        if distinct.len() < 2 {
            self.homes.clear();
        }
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::ServerUpgrade { path, server } => self.upgrades.push((path.clone(), server.clone())),
            Step::Negotiate { path, claims } => self.pending = Some((path.clone(), String::new(), claims.clone())),
            Step::Negotiated { id } => self.negotiate(id).await?,
            Step::ClientUpgrade { path, headers, claims } => self.open_client(path, headers, claims).await?,
            Step::ClientRequest { path, headers, claims } => self.request(path, headers, claims).await?,
            Step::ToService { connection, frame } => self.send(connection, frame).await?,
            Step::FromService { connection, frame } => self.expect(connection, frame).await?,
            Step::ClientSays { id, is_binary, bytes } => self.send_as_client(id, *is_binary, bytes).await?,
            Step::ClientGets { id, bytes } => self.get(id, bytes).await?,
            Step::ClientCloses { id, code } => self.close_client(id, *code).await?,
            Step::Control(what) if what == "set" => {}
            Step::ServerCloses | Step::Control(_) | Step::CutShort | Step::Rest => bail!("no step of a replay"),
        }
        Ok(())
    }

    /// Token of a recorded client: its claims, signed again, and its first app server if the recording has two.
    fn token(&self, claims: &Json, id: &str) -> Result<String> {
        let mut claims = claims.clone();
        let all = claims.as_object_mut().context("claims")?;
        all.retain(|name, _| !TIMES.contains(&name.as_str()));
        if let Some(server) = self.homes.get(id) {
            all.insert("asrs.s.sn".into(), json!(server));
            all.insert("asrs.s.ssticky".into(), json!("Preferred"));
        }
        signed(KEY, &claims)
    }

    async fn negotiate(&mut self, id: &str) -> Result<()> {
        let (path, _, claims) = self.pending.take().context("a negotiate before its answer")?;
        let bearer = format!("Bearer {}", self.token(&claims, id)?);
        let answer = ask(self.dial_in.address(), Method::POST, &path, &[("authorization", &bearer)]).await?;
        ensure!(answer.status == 200, "{answer:?}");
        let answer = answer.json()?;
        ensure!(answer["negotiateVersion"] == 1, "{answer}");
        let text = |name: &str| answer[name].as_str().map(str::to_owned).context("a text");
        let (own, secret) = (text("connectionId")?, text("connectionToken")?);
        // Equal lengths, so that replacing ids inside frames changes no length.
        ensure!(own.len() == id.len(), "{own} is another kind of id than {id}");
        let (due_down, due_up) = (Vec::new(), Vec::new());
        let player = Player {
            socket: None,
            id: own,
            secret,
            protocol: "json".into(),
            home: None,
            due_down,
            due_up,
            has_left: false,
        };
        self.clients.insert(id.into(), player);
        self.compared += 1;
        Ok(())
    }

    async fn open_client(&mut self, path: &str, headers: &[(String, String)], claims: &Json) -> Result<()> {
        let id = id_in(path)?;
        let token = self.token(claims, &id)?;
        let player = self.clients.get_mut(&id).context("a client that has negotiated")?;
        let old = path.split('&').find(|one| one.starts_with("access_token=")).unwrap_or_default();
        let path = path.replace(&format!("id={id}"), &format!("id={}", player.secret));
        let bearer = format!("Bearer {token}");
        let (path, login) = if old.is_empty() {
            (path, Some(bearer.as_str()))
        } else {
            (path.replace(old, &format!("access_token={token}")), None)
        };
        let mut all: Vec<(&'static str, &str)> = Vec::new();
        all.extend(login.map(|bearer| ("authorization", bearer)));
        for (name, value) in headers {
            // Leaks header names, which the test needs only briefly.
            all.push((Box::leak(name.clone().into_boxed_str()), value));
        }
        let socket = RawClient::try_open_with(self.dial_in.address(), &path, &all).await?;
        let socket = socket.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        player.socket = Some(PlayerSocket::Web(Box::new(socket)));
        Ok(())
    }

    async fn request(&mut self, path: &str, headers: &[(String, String)], claims: &Json) -> Result<()> {
        let id = id_in(path)?;
        let token = self.token(claims, &id)?;
        let address = self.dial_in.address().to_owned();
        let player = self.clients.get_mut(&id).context("a client that has negotiated")?;
        match &mut player.socket {
            Some(PlayerSocket::Polls(client) | PlayerSocket::Events(client, _)) => client.authorize(&token),
            None if !player.has_left => {
                let path = path.replace(&format!("id={id}"), &format!("id={}", player.secret));
                let mut client = CarriedClient::with_headers(&address, &path, headers.to_vec());
                client.authorize(&token);
                player.socket = Some(if headers.iter().any(|(_, value)| value == "text/event-stream") {
                    let stream = client.events().await?;
                    PlayerSocket::Events(client, stream)
                } else {
                    let first = client.poll().await?;
                    ensure!(first.status == 200 && first.body.is_empty(), "{first:?}");
                    PlayerSocket::Polls(client)
                });
            }
            _ => {}
        }
        Ok(())
    }

    async fn send_as_client(&mut self, id: &str, is_binary: bool, bytes: &[u8]) -> Result<()> {
        let bytes = self.ours(bytes);
        let player = self.clients.get_mut(id).context("a client")?;
        if player.home.is_none() {
            let text = std::str::from_utf8(&bytes)?;
            let handshake: Json = serde_json::from_str(text.trim_end_matches('\u{1e}'))?;
            player.protocol = handshake["protocol"].as_str().context("a protocol")?.to_owned();
        }
        let last = if player.home.is_some() { hub_messages(&bytes, &player.protocol)?.pop() } else { None };
        player.has_left |= last.map(|last| hub_type(&last, &player.protocol)).transpose()? == Some(HUB_CLOSE);
        let Some(socket) = &mut player.socket else { return Ok(()) };
        socket.send(is_binary, bytes).await
    }

    async fn get(&mut self, id: &str, bytes: &[u8]) -> Result<()> {
        let bytes = self.ours(bytes);
        let player = self.clients.get_mut(id).context("a client")?;
        if player.has_left {
            return Ok(());
        }
        let is_handshake = bytes.starts_with(b"{}\x1e") || bytes.starts_with(b"{\"error\"");
        let expected = if is_handshake { vec![bytes.clone()] } else { hub_messages(&bytes, &player.protocol)? };
        for expected in expected {
            if !is_handshake && hub_type(&expected, &player.protocol)? == HUB_PING {
                continue;
            }
            let came = player.next(is_handshake).await.with_context(|| format!("{:?} is due", lossy(&expected)))?;
            ensure!(came == expected, "{:?} came instead of {:?}", lossy(&came), lossy(&expected));
            self.compared += 1;
        }
        Ok(())
    }

    async fn close_client(&mut self, id: &str, code: u64) -> Result<()> {
        let player = self.clients.get_mut(id).context("a client")?;
        let socket = player.socket.take();
        let mut socket = match socket {
            Some(PlayerSocket::Web(socket)) => *socket,
            Some(PlayerSocket::Polls(client)) => {
                player.has_left = true;
                return client.delete().await.map(drop);
            }
            // The client ends with its stream.
            Some(PlayerSocket::Events(..)) | None => {
                player.has_left = true;
                return Ok(());
            }
        };
        match code {
            1005 => drop(socket.close().await),
            1006 => drop(socket),
            code => {
                let code = u16::try_from(code)?.into();
                let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code, reason: "".into() };
                drop(socket.send(Message::Close(Some(frame))).await);
                drop(socket.ending().await);
            }
        }
        Ok(())
    }

    /// Plays a frame of the app server over the server connection that corresponds to the recorded one.
    async fn send(&mut self, connection: &str, frame: &[u8]) -> Result<()> {
        let frame = self.ours(frame);
        let mut rest = frame.clone();
        let read = message(&take_frame(&mut rest)?.context("a whole frame")?)?;
        if kind_of(&read) == kind::HANDSHAKE_REQUEST {
            return self.shake_hands(connection, &read).await;
        }
        let place = self.place(connection, read.at(1).as_text())?;
        let frame = if kind_of(&read) == kind::REFRESH_AUTH { self.by_token(read)? } else { frame };
        self.server.at(place)?.send_bytes(frame)
    }

    /// Login refresh with the node's connection token instead of the id.
    fn by_token(&self, refresh: Value) -> Result<Vec<u8>> {
        let player = self.clients.values().find(|player| refresh.at(1).as_text() == Some(&player.id));
        let token = player.context("a client of this token")?.secret.as_str().into();
        let Value::List(mut all) = refresh else { bail!("{refresh:?}") };
        *all.get_mut(1).context("a token")? = token;
        Ok(crate::frame::frame(&Value::List(all)))
    }

    async fn shake_hands(&mut self, connection: &str, handshake: &Value) -> Result<()> {
        let number: usize = connection.trim_start_matches("server-").parse()?;
        let (path, server) = self.upgrades.get(number - 1).context("an upgrade")?.clone();
        let hub = path.split(['?', '&']).find_map(|one| one.strip_prefix("hub=")).context("a hub")?.to_owned();
        let dial = Dial { path, token: server_token(&hub, &server)?, server };
        let address = self.dial_in.address().to_owned();
        let place = self.server.connect_with(&address, &dial, handshake).await?;
        self.places.insert(connection.into(), place);
        Ok(())
    }

    /// Place that corresponds to a recorded server connection; for a client, the place of its own server connection.
    fn place(&self, connection: &str, of: Option<&str>) -> Result<usize> {
        let own = self.clients.values().find(|player| of == Some(&player.id));
        let home = own.and_then(|player| player.home.as_ref()).filter(|(recorded, _)| recorded == connection);
        if let Some((_, place)) = home {
            return Ok(*place);
        }
        self.places.get(connection).copied().context("a server connection that has shaken hands")
    }

    async fn expect(&mut self, connection: &str, recorded: &Value) -> Result<()> {
        match kind_of(recorded) {
            // Checked during the handshake.
            kind::HANDSHAKE_RESPONSE => Ok(()),
            kind::PING => self.expect_ping(connection, recorded).await,
            kind::OPEN_CONNECTION => self.expect_open(connection, recorded).await,
            kind::CONNECTION_DATA => self.expect_data(recorded).await,
            kind::ACK => self.expect_ack(connection, recorded).await,
            kind::UPDATE_CONNECTION_CLAIMS => self.expect_claims(recorded).await,
            _ => {
                let wanted = self.ours_of(recorded)?;
                let (number, id) = (kind_of(&wanted), wanted.at(1).clone());
                let (_, came) = self.find(|frame| kind_of(frame) == number && *frame.at(1) == id).await?;
                ensure!(is_alike(&came, &wanted), "{came:?} came instead of {wanted:?}");
                self.compared += 1;
                Ok(())
            }
        }
    }

    async fn expect_ping(&mut self, connection: &str, recorded: &Value) -> Result<()> {
        let Some(key) = recorded.at(1).as_text() else { return Ok(()) };
        let place = self.place(connection, None)?;
        let is_it = |at: usize, event: &Event| {
            at == place
                && matches!(event, Event::Frame(frame) if kind_of(frame) == kind::PING && frame.at(1).as_text() == Some(key))
        };
        let (_, event) = self.server.find(is_it).await?;
        let Event::Frame(came) = event else { bail!("just found") };
        ensure!(came.at(2) == recorded.at(2) || key != "shutdown", "{came:?} instead of {recorded:?}");
        self.compared += 1;
        Ok(())
    }

    async fn expect_open(&mut self, connection: &str, recorded: &Value) -> Result<()> {
        let id = recorded.at(1).as_text().context("an id")?.to_owned();
        let own = self.clients.get(&id).context("a client")?.id.clone();
        let is_it = |frame: &Value| kind_of(frame) == kind::OPEN_CONNECTION && frame.at(1).as_text() == Some(&own);
        let (place, came) = self.find(is_it).await?;
        let is_led = self.homes.contains_key(&id);
        // The recording service wrote claims that .NET maps only by these names.
        let (own, passed_on): (Vec<_>, Vec<_>) =
            claims(&came, is_led).into_iter().partition(|(name, _)| long_claim(name).is_some());
        ensure!(passed_on == claims(recorded, false), "{came:?} instead of {recorded:?}");
        let by_long_name = |(name, value): &(String, String)| Some((long_claim(name)?, value.clone()));
        let mut copies: Vec<_> = own.iter().filter_map(by_long_name).collect();
        copies.sort();
        ensure!(copies.iter().all(|copy| passed_on.contains(copy)), "a claim has one name only: {came:?}");
        let long = passed_on.iter().filter(|(name, _)| name.starts_with("http://schemas.")).count();
        ensure!(copies.len() == long, "a claim has one name only: {came:?}");
        ensure!(headers(&came) == headers(recorded), "{:?} instead of {:?}", headers(&came), headers(recorded));
        ensure!(query(&came) == query(recorded), "{:?} instead of {:?}", query(&came), query(recorded));
        ensure!(came.at(5) == recorded.at(5), "{came:?} instead of {recorded:?}");
        let player = self.clients.get_mut(&id).context("a client")?;
        player.home = Some((connection.to_owned(), place));
        // Messages that the app server sends to others over this connection stay ordered with messages to this client.
        self.places.insert(connection.to_owned(), place);
        self.compared += 1;
        Ok(())
    }

    async fn expect_data(&mut self, recorded: &Value) -> Result<()> {
        let id = recorded.at(1).as_text().context("an id")?.to_owned();
        let bytes = self.ours(recorded.at(2).as_bytes().context("bytes")?);
        let player = self.clients.get(&id).context("a client")?;
        let (own, protocol) = (player.id.clone(), player.protocol.clone());
        let is_handshake = bytes.starts_with(b"{\"protocol\"") || bytes.starts_with(b"{\"version\"");
        let expected = if is_handshake { vec![bytes] } else { hub_messages(&bytes, &protocol)? };
        for expected in expected {
            if !is_handshake && [HUB_PING, HUB_CLOSE].contains(&hub_type(&expected, &protocol)?) {
                continue;
            }
            let came =
                self.next_up(&id, &own, &protocol).await.with_context(|| format!("{:?} is due", lossy(&expected)))?;
            ensure!(came == expected, "{:?} came instead of {:?}", lossy(&came), lossy(&expected));
            self.compared += 1;
        }
        Ok(())
    }

    /// Next hub message from a client, without pings; its frame must not name a wrong kind.
    async fn next_up(&mut self, recorded: &str, own: &str, protocol: &str) -> Result<Vec<u8>> {
        loop {
            let player = self.clients.get_mut(recorded).context("a client")?;
            if !player.due_up.is_empty() {
                return Ok(player.due_up.remove(0));
            }
            let is_it = |frame: &Value| kind_of(frame) == kind::CONNECTION_DATA && frame.at(1).as_text() == Some(own);
            let (_, came) = self.find(is_it).await?;
            let bytes = came.at(2).as_bytes().context("bytes")?;
            let is_handshake = bytes.starts_with(b"{\"protocol\"") || bytes.starts_with(b"{\"version\"");
            let messages = if is_handshake { vec![bytes.to_vec()] } else { hub_messages(bytes, protocol)? };
            for message in messages {
                let of_type = if is_handshake { 0 } else { hub_type(&message, protocol)? };
                let of_kind = if is_handshake { 1 } else { data_kind_of(of_type) };
                ensure!([0, of_kind].contains(&data_kind(&came)), "{came:?} should be of kind {of_kind}");
                let player = self.clients.get_mut(recorded).context("a client")?;
                player.due_up.extend((of_type != HUB_PING).then_some(message));
            }
        }
    }

    async fn expect_ack(&mut self, connection: &str, recorded: &Value) -> Result<()> {
        let ack = recorded.at(1).clone();
        let (place, came) = self.find(|frame| kind_of(frame) == kind::ACK && *frame.at(1) == ack).await?;
        ensure!(came.at(2) == recorded.at(2), "{came:?} instead of {recorded:?}");
        let asked = self.place(connection, None)?;
        ensure!(place == asked, "{came:?} comes by {place} instead of {asked}");
        // Claims, for some questions.
        if recorded.at(5).as_bytes().is_some_and(|payload| !payload.is_empty()) {
            ensure!(came.at(5) == recorded.at(5), "{came:?} instead of {recorded:?}");
        }
        self.compared += 1;
        Ok(())
    }

    async fn expect_claims(&mut self, recorded: &Value) -> Result<()> {
        let id = recorded.at(1).as_text().context("an id")?;
        let home = self.clients.get(id).and_then(|player| player.home.as_ref()).context("an open client")?.1;
        let wanted = self.ours_of(recorded)?;
        let is_it = |frame: &Value| kind_of(frame) == kind::UPDATE_CONNECTION_CLAIMS && frame.at(1) == wanted.at(1);
        let (place, came) = self.find(is_it).await?;
        ensure!(place == home, "{came:?} comes by {place} instead of {home}");
        ensure!(came == wanted, "{came:?} came instead of {wanted:?}");
        self.compared += 1;
        Ok(())
    }

    async fn find(&mut self, mut is_it: impl FnMut(&Value) -> bool) -> Result<(usize, Value)> {
        let is_it = |_, event: &Event| match event {
            Event::Frame(frame) => is_it(frame),
            Event::Wrong(_) | Event::End(_) => true,
        };
        match self.server.find(is_it).await? {
            (place, Event::Frame(frame)) => Ok((place, frame)),
            (place, other) => bail!("{other:?} by {place}"),
        }
    }

    async fn left(&mut self) -> Result<Vec<(usize, Event)>> {
        let places = self.server.connections.len();
        let mut left = Vec::new();
        for place in 0..places {
            left.extend(self.server.fence(place).await?);
        }
        left.retain(|(_, event)| !matches!(event, Event::Frame(frame) if is_keep_alive(frame)));
        Ok(left)
    }

    fn ours(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (recorded, player) in &self.clients {
            exchange(&mut bytes, recorded.as_bytes(), player.id.as_bytes());
        }
        bytes
    }

    fn ours_of(&self, frame: &Value) -> Result<Value> {
        message(&self.ours(&frame.encode()))
    }
}

impl Player {
    async fn next(&mut self, is_handshake: bool) -> Result<Vec<u8>> {
        loop {
            if !self.due_down.is_empty() {
                let first = self.due_down.remove(0);
                if is_handshake || hub_type(&first, &self.protocol)? != HUB_PING {
                    return Ok(first);
                }
                continue;
            }
            let socket = self.socket.as_mut().context("its socket has ended")?;
            let mut bytes = socket.next().await?;
            if is_handshake {
                let end = bytes.iter().position(|byte| *byte == 0x1e).context("a handshake's end")? + 1;
                self.due_down.push(bytes.drain(..end).collect());
            }
            self.due_down.extend(hub_messages(&bytes, &self.protocol)?);
        }
    }
}

/// Recorded client id in a request path.
fn id_in(path: &str) -> Result<String> {
    let mut parameters = path.split(['?', '&']);
    Ok(parameters.find_map(|one| one.strip_prefix("id=")).context("an id")?.to_owned())
}

fn exchange(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let places: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, window)| *window == old).map(|(at, _)| at).collect();
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
}

/// Whether two frames are equal, with nil equal to "".
fn is_alike(one: &Value, other: &Value) -> bool {
    let (Value::List(one), Value::List(other)) = (one, other) else { return false };
    let plain = |value: &Value| if *value == Value::Nil { Value::from("") } else { value.clone() };
    if one.first() == Some(&Value::Int(kind::CLIENT_COMPLETION)) {
        // The named app server and the protocol name in the extension are irrelevant.
        let without = |all: &[Value]| [&all[..3], &all[4..6]].concat();
        return one.len() == other.len() && without(one) == without(other);
    }
    if one.first() == Some(&Value::Int(kind::ERROR_COMPLETION)) {
        return one.len() == other.len()
            && one[..4] == other[..4]
            && one[4].as_text().is_some_and(|text| !text.is_empty());
    }
    // A longer form from a newer SDK is equally valid.
    one.len() >= other.len() && one.iter().zip(other).all(|(one, other)| plain(one) == plain(other))
}

fn is_keep_alive(frame: &Value) -> bool {
    let is_json_ping = |bytes: &[u8]| bytes == b"{\"type\":6}\x1e" || bytes == framed(&[0x91, 6]);
    kind_of(frame) == kind::CONNECTION_DATA && frame.at(2).as_bytes().is_some_and(is_json_ping)
}

/// Claims of an opened client, without times and without claims that the replay added.
fn claims(opened: &Value, is_led: bool) -> Vec<(String, String)> {
    let Value::Map(claims) = opened.at(2) else { return Vec::new() };
    let text = |value: &Value| value.as_text().unwrap_or_default().to_owned();
    let all = claims.iter().map(|(name, value)| (text(name), text(value)));
    let added = |name: &str| is_led && ["asrs.s.sn", "asrs.s.ssticky"].contains(&name);
    let mut all: Vec<_> = all.filter(|(name, _)| !TIMES.contains(&name.as_str()) && !added(name)).collect();
    all.sort();
    all
}

fn headers(opened: &Value) -> Vec<(String, String)> {
    const OTHERS: [&str; 6] = ["host", "connection", "upgrade", "authorization", "x-forwarded-for", "asrs-instance-id"];
    let Value::Map(headers) = opened.at(3) else { return Vec::new() };
    let text = |value: &Value| match value {
        Value::List(all) => all.iter().filter_map(Value::as_text).collect::<Vec<_>>().join("\n"),
        other => format!("{other:?}"),
    };
    let all = headers.iter().map(|(name, value)| (name.as_text().unwrap_or_default().to_lowercase(), text(value)));
    let mut all: Vec<_> =
        all.filter(|(name, _)| !OTHERS.contains(&name.as_str()) && !name.starts_with("sec-websocket")).collect();
    all.sort();
    all
}

/// Query of a client without secrets.
fn query(opened: &Value) -> String {
    let query = opened.at(4).as_text().unwrap_or_default();
    let parts = query.split('&').filter(|part| !part.starts_with("id=") && !part.starts_with("access_token="));
    parts.collect::<Vec<_>>().join("&")
}

fn lossy(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn shown(step: &Step) -> String {
    format!("{step:?}").chars().take(300).collect()
}

/// Number of steps to replay, up to the first where the recording service behaves differently.
fn playable(steps: &[Step]) -> usize {
    let is_end = |step: &Step| match step {
        Step::ServerCloses | Step::CutShort | Step::Rest => true,
        // A `set` command defined the answer earlier.
        Step::Control(what) => what != "set",
        // The recording service moved or lost each client at its next message. The node moves all clients together (see
        // `losses`).
        Step::ToService { frame, .. } => contains(frame, b"fin:0") || contains(frame, b"fin:1"),
        _ => false,
    };
    let end = steps.iter().position(is_end).unwrap_or(steps.len());
    // Effects of the last message are missing.
    let is_cut = matches!(steps.get(end), Some(Step::CutShort));
    let said = steps.iter().take(end).rposition(|step| is_cut && matches!(step, Step::ClientSays { .. }));
    said.unwrap_or(end)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Folders with recordings, one per archive.
const FOLDERS: [&str; 2] = ["records", "records-net11"];

/// Recordings that are not replayed, with reasons.
const NOT_PLAYED: [(&str, &str); 8] = [
    (
        "13-stateful-reconnect",
        "its service granted it and did nothing else for it; `coming_back` has what this node does",
    ),
    ("15-handshake-error", "the recording service was told to refuse; `upgrades` has what this node refuses"),
    ("15-handshake-silent", "the recording service was told to be silent"),
    ("15-refused-307", "the recording service was told to refuse"),
    ("15-refused-401", "the recording service was told to refuse"),
    ("15-refused-404", "the recording service was told to refuse"),
    ("15-refused-503", "the recording service was told to refuse"),
    ("21-moved-to-another-endpoint-second", "its only client is another endpoint's"),
];

fn replay(name: &str, at_least: usize) {
    let Some(folder) = azure_sdk_folder() else {
        eprintln!("skipped: there are no records (TRUNKLINE_AZURE_SDK names their folder)");
        return;
    };
    run_test(async |fixture| {
        let paths = FOLDERS.map(|of| folder.join(of).join(name).with_extension("jsonl"));
        let Some(path) = paths.iter().find(|path| path.is_file()) else {
            eprintln!("skipped: there is no record {name}");
            return Ok(());
        };
        let steps = read(path)?;
        let until = playable(&steps);
        let replay = Replay {
            // The only browser in the recordings uses a page of another origin; without this flag its cookies would not
            // be forwarded.
            dial_in: DialIn::open_with(fixture, &["--allow-origin", "http://127.0.0.1:5091"]).await?,
            server: Scripted::new("bench", "replayed"),
            upgrades: Vec::new(),
            places: HashMap::new(),
            clients: HashMap::new(),
            pending: None,
            homes: HashMap::new(),
            compared: 0,
        };
        let compared = replay.play(&steps, until).await.with_context(|| name.to_owned())?;
        eprintln!("{name}: {compared} compared in {until} of {} steps", steps.len());
        ensure!(compared >= at_least, "{name}: only {compared} of what came back was compared");
        Ok(())
    });
}

macro_rules! replays {
    ($($test:ident: $name:literal at least $count:literal),* $(,)?) => {
        $(#[test] fn $test() { replay($name, $count); })*

        /// Names of all replayed recordings.
        const PLAYED: &[&str] = &[$($name),*];
    };
}

replays! {
    record_01_startup: "01-startup-and-idle" at least 4,
    record_02_json: "02-client-json" at least 35,
    record_03_message_pack: "03-client-messagepack" at least 35,
    record_04_groups: "04-groups-users-broadcasts" at least 100,
    record_05_client_results: "05-client-results" at least 50,
    record_06_ends: "06-ends-of-connections" at least 10,
    record_07_migrate: "07-shutdown-migrate" at least 10,
    record_07_off: "07-shutdown-off" at least 10,
    record_07_wait: "07-shutdown-wait" at least 10,
    record_08_more_connections: "08-more-connections" at least 0,
    record_09_lost: "09-lost-server-connections" at least 4,
    record_10_moved: "10-moved-to-another-server-connection" at least 4,
    record_11_pings: "11-pings" at least 0,
    record_12_pause: "12-pause-and-resume" at least 4,
    record_14_application_name: "14-application-name" at least 5,
    record_16_odd_frames: "16-odd-frames" at least 4,
    record_17_large: "17-large-messages" at least 6,
    record_18_two_endpoints: "18-two-endpoints" at least 30,
    record_18_second: "18-two-endpoints-second" at least 5,
    record_19_wrong_strings: "19-wrong-connection-strings" at least 0,
    record_20_persistent: "20-management-persistent" at least 15,
    record_20_transient: "20-management-transient" at least 0,
    record_21_other_endpoint: "21-moved-to-another-endpoint" at least 4,
    record_22_blazor: "22-blazor" at least 30,
    record_23_on_demand: "23-on-demand-refused" at least 0,
    record_24_refresh: "24-auth-refresh" at least 130,
}

#[test]
fn every_record_is_played_or_has_a_reason_not_to_be() -> Result<()> {
    let Some(folder) = azure_sdk_folder() else { return Ok(()) };
    let mut unknown = Vec::new();
    let folders = FOLDERS.map(|of| folder.join(of)).into_iter().filter(|folder| folder.is_dir());
    for entry in folders.map(std::fs::read_dir).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        let name = entry?.path().file_stem().context("a name")?.to_string_lossy().into_owned();
        let has_reason = NOT_PLAYED.iter().any(|(not_played, reason)| *not_played == name && !reason.is_empty());
        if !has_reason && !PLAYED.contains(&name.as_str()) {
            unknown.push(name);
        }
    }
    ensure!(unknown.is_empty(), "{unknown:?} are neither played nor explained");
    Ok(())
}
