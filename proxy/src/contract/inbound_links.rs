//! Fleet with app servers that dial in: receivers of their messages, and distribution of their links.

use std::collections::HashSet;
use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use trunkline_protocol::access_token;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::manifest::MIGRATE_FROM_HEADER;
use trunkline_protocol::service::*;

use super::app::{broadcast, json, membership, to_connection, to_group, to_user};
use super::client::{Client, JSON_HANDSHAKE, Received};
use super::fixture::{KEY, paused};
use super::fleet_nodes::{FleetNode, linked, peers, until};
use super::hub_message::header;
use crate::engine::shard::DATA_TYPE_HANDSHAKE;
use crate::ground::clock::unix_seconds;
use crate::ground::config::{RelaySettings, Settings};
use crate::ground::net::connector::MemoryNetwork;

pub(super) const HUB: &str = "?hub=bench";
pub(super) const ONE: &str = "one.example";
const TWO: &str = "two.example:8080";

/// Time for nodes to exchange changes.
const NEWS: Duration = Duration::from_millis(500);

/// Starts nodes 1 to `count` of a fleet that accepts dial-in.
pub(super) async fn dial_in_nodes(count: u8) -> (MemoryNetwork, Vec<FleetNode>) {
    let (network, all) = (MemoryNetwork::default(), (1..=count).collect::<Vec<_>>());
    let mut nodes = Vec::new();
    for &number in &all {
        let relay = RelaySettings { hop_timeout: Duration::from_secs(5), ..RelaySettings::embedded() };
        nodes.push(FleetNode::start(&network, number, Settings { accepts_dial_in: true, relay, ..peers(&all) }).await);
    }
    linked(&nodes).await;
    (network, nodes)
}

/// Starts three nodes, with a link of an app server to each, and a client of it.
async fn nodes_with_clients() -> (Vec<FleetNode>, Vec<DialInLink>, Vec<Client>) {
    let (_, nodes) = dial_in_nodes(3).await;
    let (mut homes, mut clients) = (Vec::new(), Vec::new());
    for node in &nodes {
        let mut home = DialInLink::open(node, "home_1", ONE).await;
        clients.push(home.client(node, "ann").await);
        homes.push(home);
    }
    (nodes, homes, clients)
}

/// Starts a node with a link of an app server.
pub(super) async fn node_with_link() -> (FleetNode, DialInLink) {
    let node = dial_in_nodes(1).await.1.remove(0);
    let link = DialInLink::open(&node, "home_1", ONE).await;
    (node, link)
}

pub(super) fn token(path: &str, user: &str) -> String {
    token_until(path, user, unix_seconds() + 3600)
}

pub(super) fn expired_token(path: &str, user: &str) -> String {
    token_until(path, user, unix_seconds() - 3600)
}

fn token_until(path: &str, user: &str, until_s: u64) -> String {
    token_by(KEY, path, user, until_s)
}

fn token_by(key: &str, path: &str, user: &str, until_s: u64) -> String {
    let audience = ("aud".to_owned(), format!("http://any.example/{path}/?hub=bench"));
    access_token::sign(&AccessKey::new(key).unwrap(), user, &[audience], until_s)
}

/// Link dialled by an app server. It answers keep-alives and hub handshakes automatically.
pub(super) struct DialInLink {
    to_node: mpsc::UnboundedSender<Message>,
    from_node: mpsc::UnboundedReceiver<ServiceMessage>,
    targets: mpsc::UnboundedReceiver<String>,
}

impl DialInLink {
    /// Dials a node under an endpoint; returns the text of a refused handshake as an error.
    async fn dial(node: &FleetNode, instance: &str, endpoint: &str, target: Option<&str>) -> Result<Self, String> {
        Self::dial_by(KEY, node, instance, (endpoint, target)).await
    }

    pub(super) async fn dial_by(
        key: &str,
        node: &FleetNode,
        instance: &str,
        (endpoint, target): (&str, Option<&str>),
    ) -> Result<Self, String> {
        let mut socket = dial_socket(key, node, instance, (endpoint, target)).await?;
        let kind = match target {
            Some(_) => LinkKind::OnDemand,
            // Sends only, like the Management SDK.
            None if instance.starts_with("sender") => LinkKind::Weak,
            None => LinkKind::Default,
        };
        let hello = LinkHandshakeRequest {
            version: 1,
            kind,
            allow_stateful_reconnects: true,
            ..LinkHandshakeRequest::default()
        };
        send(&mut socket, &ServiceMessage::HandshakeRequest(hello)).await;
        let (to_node, outgoing) = mpsc::unbounded_channel();
        let (received, mut from_node) = mpsc::unbounded_channel();
        let (asked, targets) = mpsc::unbounded_channel();
        let answers_clients = !instance.starts_with("silent");
        spawn_local(drive(socket, outgoing, answers_clients, received, asked));
        match from_node.recv().await.expect("the node answers") {
            ServiceMessage::HandshakeResponse(LinkHandshakeResponse { error: None, .. }) => {}
            ServiceMessage::HandshakeResponse(refused) => return Err(refused.error.unwrap().to_string()),
            other => panic!("{other:?} instead of an answer"),
        }
        Ok(Self { to_node, from_node, targets })
    }

    pub(super) async fn open(node: &FleetNode, instance: &str, endpoint: &str) -> Self {
        Self::dial(node, instance, endpoint, None).await.unwrap()
    }

    pub(super) async fn open_by(key: &str, node: &FleetNode, instance: &str) -> Self {
        Self::dial_by(key, node, instance, (ONE, None)).await.unwrap()
    }

    pub(super) fn send(&self, message: ServiceMessage) {
        self.to_node.send(Message::Binary(message.to_frame())).unwrap();
    }

    /// Closes the link, like an app server that has ended its clients.
    pub(super) fn close(&self) {
        self.to_node.send(Message::Close(None)).unwrap();
    }

    /// Ends the link for the node. Messages received earlier stay readable.
    pub(super) fn sever(&mut self) {
        self.to_node = mpsc::unbounded_channel().0;
    }

    pub(super) async fn next(&mut self) -> ServiceMessage {
        self.from_node.recv().await.expect("the link has ended")
    }

    /// Returns a message that has already arrived.
    pub(super) fn try_next(&mut self) -> Option<ServiceMessage> {
        self.from_node.try_recv().ok()
    }

    pub(super) async fn ack(&mut self) -> Ack {
        match self.next().await {
            ServiceMessage::Ack(ack) => ack,
            other => panic!("{other:?} instead of an ack"),
        }
    }

    pub(super) async fn client(&mut self, node: &FleetNode, user: &str) -> Client {
        self.client_by(node, &token("client", user)).await
    }

    /// Connects a client with this token, assigned to this link.
    async fn client_by(&mut self, node: &FleetNode, token: &str) -> Client {
        let target = format!("/client/{HUB}&access_token={token}");
        let mut client = Client::upgrade(&node.fixture, &target).await.unwrap();
        client.send(JSON_HANDSHAKE).await;
        assert_eq!(client.next().await, Received::Text("{}".into()));
        let open = match self.next().await {
            ServiceMessage::OpenConnection(open) => open,
            other => panic!("{other:?} instead of an opening"),
        };
        client.id = open.connection_id.to_string();
        client
    }

    /// Acknowledges that the node moves a client to another link.
    pub(super) async fn pass_client_on(&mut self, to: &mut Self) {
        let flow = |message| match message {
            ServiceMessage::ConnectionFlowControl(flow) => flow,
            other => panic!("{other:?} instead of flow control"),
        };
        let pause = flow(self.next().await);
        assert_eq!(pause.operation, FlowOperation::Pause);
        self.send(ServiceMessage::ConnectionFlowControl(ConnectionFlowControl {
            operation: FlowOperation::PauseAck,
            ..pause
        }));
        assert_eq!(flow(to.next().await).operation, FlowOperation::Resume);
    }

    pub(super) async fn ended(&mut self) {
        while self.from_node.recv().await.is_some() {}
    }

    /// Proves that no other message is in flight to a client of this link.
    pub(super) async fn fence(&self, client: &mut Client) {
        let payload = Bytes::from_static(b"{\"fence\":true}\x1e");
        let data = ConnectionData { connection_id: client.id.as_str().into(), payload, ..ConnectionData::default() };
        self.send(ServiceMessage::ConnectionData(data));
        assert_eq!(client.text().await, "{\"fence\":true}");
    }

    /// Names of nodes for which the app server was asked to open links.
    fn targets(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.targets.try_recv().ok()).collect()
    }
}

/// Socket of an app server, before the handshake of its link.
pub(super) async fn dial_socket(
    key: &str,
    node: &FleetNode,
    instance: &str,
    (endpoint, target): (&str, Option<&str>),
) -> Result<WebSocketStream<DuplexStream>, String> {
    let named = target.map(|target| format!("&target={target}")).unwrap_or_default();
    let mut request = format!("ws://{endpoint}/server/{HUB}&cid=1{named}").into_client_request().unwrap();
    let bearer = format!("Bearer {}", token_by(key, "server", instance, unix_seconds() + 3600));
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    request.headers_mut().insert("x-asrs-server-id", instance.parse().unwrap());
    match client_async(request, node.fixture.dial()).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => {
            let status = answer.status();
            let text = String::from_utf8(answer.into_body().unwrap_or_default()).unwrap();
            Err(format!("{status}: {text}"))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn send(socket: &mut WebSocketStream<DuplexStream>, message: &ServiceMessage) {
    // Fails if the node has ended the link.
    drop(socket.send(Message::Binary(message.to_frame())).await);
}

/// Forwards frames between the test and a node, with the standard behaviour of app servers.
async fn drive(
    mut socket: WebSocketStream<DuplexStream>,
    mut outgoing: mpsc::UnboundedReceiver<Message>,
    answers_clients: bool,
    received: mpsc::UnboundedSender<ServiceMessage>,
    asked: mpsc::UnboundedSender<String>,
) {
    let (mut frames, mut migrated) = (FrameBuffer::default(), HashSet::new());
    loop {
        let piece = tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => {
                    drop(socket.send(message).await);
                    continue;
                }
                None => return,
            },
            piece = socket.next() => piece,
        };
        let Some(Ok(Message::Binary(piece))) = piece else { return };
        frames.push(piece);
        while let Some(body) = frames.next_body().unwrap() {
            match ServiceMessage::decode(&body).unwrap().expect("a frame of a known type") {
                ServiceMessage::Ping(ping) => {
                    let names = ping.pairs.iter().filter(|(key, _)| key == "target");
                    names.for_each(|(_, name)| drop(asked.send(name.to_string())));
                    // An echo ping is returned unchanged; any other ping is answered with a keep-alive.
                    let is_echo = ping.pairs.iter().any(|(key, _)| key == ECHO_KEY);
                    let answer = if is_echo { ping } else { Ping::default() };
                    send(&mut socket, &ServiceMessage::Ping(answer)).await;
                }
                // Migrated connections are already open: their handshake gets no response.
                ServiceMessage::ConnectionData(data)
                    if data.data_type == DATA_TYPE_HANDSHAKE && migrated.remove(&data.connection_id) => {}
                ServiceMessage::ConnectionData(data) if data.data_type == DATA_TYPE_HANDSHAKE && answers_clients => {
                    let answer = ConnectionData { payload: Bytes::from_static(b"{}\x1e"), ..data };
                    send(&mut socket, &ServiceMessage::ConnectionData(answer)).await;
                }
                // Fails after the end of the test.
                message => {
                    if let ServiceMessage::OpenConnection(open) = &message
                        && header(&open.headers, MIGRATE_FROM_HEADER).is_some()
                    {
                        migrated.insert(open.connection_id.clone());
                    }
                    drop(received.send(message));
                }
            }
        }
    }
}

pub(super) async fn settle() {
    tokio::time::sleep(NEWS).await; // sleep: virtual time; no event signals the state of another node
}

#[tokio::test(crate = "paused")]
async fn over_one_endpoint_a_message_reaches_the_clients_of_all_nodes_once() {
    let (nodes, mut homes, mut clients) = nodes_with_clients().await;
    let first = DialInLink::open(&nodes[0], "sender_1", ONE).await;
    for (home, client) in homes.iter_mut().zip(&clients) {
        home.send(ServiceMessage::JoinGroupWithAck(membership(&client.id, "red", 7)));
        assert_eq!(home.ack().await.status, AckStatus::Ok);
    }
    let messages = || [broadcast("all"), to_group("red", "red"), to_user("ann", "ann")];
    messages().into_iter().for_each(|message| first.send(message));
    let second = DialInLink::open(&nodes[1], "sender_1", ONE).await;
    for client in &mut clients {
        for word in ["all", "red", "ann"] {
            assert_eq!(client.text().await, word);
        }
    }
    settle().await;
    // Two nodes now have links of the app server; it still sends over one link.
    messages().into_iter().for_each(|message| second.send(message));
    for (client, home) in clients.iter_mut().zip(&homes) {
        for word in ["all", "red", "ann"] {
            assert_eq!(client.text().await, word);
        }
        settle().await;
        home.fence(client).await;
    }
}

#[tokio::test(crate = "paused")]
async fn a_filtered_send_reaches_matching_clients_at_all_nodes_and_none_if_it_is_malformed() {
    let (_network, nodes) = dial_in_nodes(2).await;
    let (mut homes, mut clients) = (Vec::new(), Vec::new());
    for node in &nodes {
        let mut home = DialInLink::open(node, "home_1", ONE).await;
        for user in ["ann", "bob"] {
            clients.push((homes.len(), user, home.client(node, user).await));
        }
        homes.push(home);
    }
    for (home, user, client) in clients.iter().filter(|(_, user, _)| *user == "bob") {
        homes[*home].send(ServiceMessage::JoinGroupWithAck(membership(&client.id, "red", 7)));
        assert_eq!(homes[*home].ack().await.status, AckStatus::Ok, "{user}");
    }
    settle().await;
    let sender = DialInLink::open(&nodes[0], "sender_1", ONE).await;
    let filtered = |filter: &str, message: ServiceMessage| {
        sender.send(ServiceMessage::Filtered(Filtered { filter: filter.into(), body: message.to_body() }));
    };
    let all_ids: Vec<_> = clients.iter().map(|(_, _, client)| client.id.as_str().into()).collect();
    filtered("userId eq", broadcast("malformed"));
    filtered("", broadcast("empty"));
    filtered("userId eq 'ann'", ServiceMessage::CloseConnectionsWithAck(CloseWithAck::default()));
    filtered("userId ne 'bob' and not ('red' in groups)", broadcast("all"));
    filtered("userId in ('ann')", to_group("red", "group"));
    filtered(
        "startswith(userId, 'a')",
        ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids: all_ids, payloads: json("ids") }),
    );
    filtered("'red' in groups", to_user("bob", "user"));
    sender.send(broadcast("end"));
    for (home, user, client) in &mut clients {
        let words: &[&str] = if *user == "ann" { &["all", "ids", "end"] } else { &["user", "end"] };
        for word in words {
            assert_eq!(client.text().await, *word, "{user}");
        }
        settle().await;
        homes[*home].fence(client).await;
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_token_allows_details_reads_the_limit_of_messages() {
    let (node, mut home) = node_with_link().await;
    let text = format!("{{\"type\":1,\"target\":\"Say\",\"arguments\":[\"{}\"]}}\u{1e}", "x".repeat(1024 * 1024));
    for (details, expected) in [("True", true), ("False", false)] {
        let claims = [
            ("aud".to_owned(), "http://any.example/client/?hub=bench".to_owned()),
            ("asrs.s.derror".to_owned(), details.to_owned()),
        ];
        let key = AccessKey::new(KEY).unwrap();
        let token = access_token::sign(&key, "ann", &claims, unix_seconds() + 3600);
        let mut client = home.client_by(&node, &token).await;
        client.send(&text).await;
        let close = client.text().await;
        let names_limit = close.contains("1048576B") && close.contains("--dial-in-message-max-bytes");
        assert!(close.starts_with("{\"type\":7") && names_limit == expected, "{close}");
        assert!(matches!(home.next().await, ServiceMessage::CloseConnection(_)));
    }
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_asks_for_a_key_by_entra_id_reads_what_to_use() {
    let (_node, mut home) = node_with_link().await;
    let key_id: Option<ByteString> = Some("k1".into());
    home.send(ServiceMessage::AccessKeyRequest(AccessKeyRequest { token: None, key_id: key_id.clone() }));
    let ServiceMessage::AccessKeyResponse(answer) = home.next().await else { panic!("no answer") };
    assert_eq!((answer.key_id, answer.access_key), (key_id, None));
    assert!(answer.error.is_some_and(|error| error.contains("AccessKey=")));
}

#[tokio::test(crate = "paused")]
async fn clients_of_one_turn_share_a_link_of_an_app_server_that_dials_in() {
    let settings = Settings { accepts_dial_in: true, pool_turn: 2, ..peers(&[1]) };
    let node = FleetNode::start(&MemoryNetwork::default(), 1, settings).await;
    let (mut one, mut other) =
        (DialInLink::open(&node, "home_1", ONE).await, DialInLink::open(&node, "home_1", ONE).await);
    let mut clients = Vec::new();
    for user in ["ann", "bob"] {
        clients.push(one.client(&node, user).await);
    }
    clients.push(other.client(&node, "eve").await);
}

#[tokio::test(crate = "paused")]
async fn a_frame_that_cannot_be_used_ends_only_the_clients_that_it_was_for() {
    let settings = Settings { accepts_dial_in: true, ..peers(&[1]) };
    let node = FleetNode::start(&MemoryNetwork::default(), 1, settings).await;
    let mut link = DialInLink::open(&node, "home_1", ONE).await;
    let (mut ann, mut bob, mut eve) =
        (link.client(&node, "ann").await, link.client(&node, "bob").await, link.client(&node, "eve").await);
    let large = || Payloads::single(HubProtocol::Json, Bytes::from(vec![b' '; LINK_FRAME_MAX_BYTES]));
    let connection_ids = vec![ann.id.as_str().into(), bob.id.as_str().into()];
    link.send(ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids, payloads: large() }));
    let limit = format!("over the limit of {LINK_FRAME_MAX_BYTES}");
    for client in [&mut ann, &mut bob] {
        assert!(client.text().await.contains(&limit));
        let ServiceMessage::CloseConnection(close) = link.next().await else { panic!("the app server is not told") };
        assert!(close.error.is_some_and(|error| error.contains(&limit)));
    }
    // An oversized broadcast closes no client, and app servers don't send acknowledgements.
    link.send(ServiceMessage::BroadcastData(BroadcastData { payloads: large(), ..BroadcastData::default() }));
    link.send(ServiceMessage::Ack(Ack::default()));
    link.fence(&mut eve).await;
    assert_eq!(node.fixture.shared.counters_of(0).dial_in.malformed.get(), 3);
}

#[tokio::test(crate = "paused")]
async fn a_frame_that_cannot_be_used_ends_no_client_of_another_app_server() {
    let (node, mut home) = node_with_link().await;
    let mut ann = home.client(&node, "ann").await;
    let mut other = DialInLink::open(&node, "home_2", ONE).await;
    let mut bob = other.client(&node, "bob").await;
    let payloads = Payloads::single(HubProtocol::Json, Bytes::from(vec![b' '; LINK_FRAME_MAX_BYTES]));
    let connection_ids = vec![bob.id.as_str().into(), ann.id.as_str().into()];
    home.send(ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids, payloads }));
    assert!(ann.text().await.contains("over the limit"));
    other.fence(&mut bob).await;
    assert_eq!(node.fixture.shared.counters_of(0).dial_in.malformed.get(), 1);
}

#[tokio::test(crate = "paused")]
async fn over_two_endpoints_a_message_comes_once_wherever_the_links_are() {
    let (nodes, homes, mut clients) = nodes_with_clients().await;
    // The third node has no link of the sender, under either endpoint.
    let senders =
        [DialInLink::open(&nodes[0], "sender_1", TWO).await, DialInLink::open(&nodes[1], "sender_1", ONE).await];
    settle().await;
    let known = nodes[2].fixture.shared.other_nodes().app_servers(HUB);
    assert_eq!(known, ["home_1"], "who only sends gets no clients");
    for word in ["first", "second"] {
        said_once(senders.iter(), word, &homes, &mut clients).await;
    }
    // The first node now has links under both endpoints, and the second node is notified.
    let both = DialInLink::open(&nodes[0], "sender_1", ONE).await;
    settle().await;
    said_once(senders.iter(), "third", &homes, &mut clients).await;
    said_once([&both, &senders[0]].into_iter(), "fourth", &homes, &mut clients).await;
}

/// Sends a text from an app server over these links. Each client must receive it once.
async fn said_once<'a>(
    senders: impl Iterator<Item = &'a DialInLink>,
    word: &str,
    homes: &[DialInLink],
    clients: &mut [Client],
) {
    senders.for_each(|sender| sender.send(broadcast(word)));
    for (client, home) in clients.iter_mut().zip(homes) {
        assert_eq!(client.text().await, word);
        settle().await;
        home.fence(client).await;
    }
}

#[tokio::test(crate = "paused")]
async fn a_question_has_one_answer_for_all_nodes_and_a_join_is_seen_by_what_follows() {
    let (nodes, _homes, mut clients) = nodes_with_clients().await;
    let mut sender = DialInLink::open(&nodes[0], "sender_1", ONE).await;
    let other = DialInLink::open(&nodes[1], "sender_1", ONE).await;
    settle().await;
    for (number, client) in (0..).zip(&clients) {
        sender.send(ServiceMessage::JoinGroupWithAck(membership(&client.id, "blue", number)));
        let ack = sender.ack().await;
        assert_eq!((ack.ack_id, ack.status), (number, AckStatus::Ok));
        // Send immediately over any link of the app server.
        other.send(to_group("blue", &number.to_string()));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        for heard in number..3 {
            assert_eq!(client.text().await, heard.to_string());
        }
    }
    let check = |subject: &str, ack_id| Check { subject: subject.into(), ack_id };
    sender.send(ServiceMessage::CheckGroupExistenceWithAck(check("blue", 10)));
    sender.send(ServiceMessage::CheckConnectionExistenceWithAck(check(&clients[2].id, 11)));
    sender.send(ServiceMessage::CheckConnectionExistenceWithAck(check("nobody at all, and long enough", 12)));
    let mut acks = [sender.ack().await, sender.ack().await, sender.ack().await].map(|ack| (ack.ack_id, ack.status));
    acks.sort_by_key(|(id, _)| *id);
    assert_eq!(acks, [(10, AckStatus::Ok), (11, AckStatus::Ok), (12, AckStatus::NotFound)]);
    assert_eq!(list(&mut sender, "blue", 2).await, [2, 1]);
    assert_eq!(list(&mut sender, "nobody's", 2).await, [0]);
    nodes[2].cut(true);
    sender.send(ServiceMessage::CheckConnectionExistenceWithAck(check("nobody at all, and long enough", 13)));
    assert_eq!(sender.ack().await.status, AckStatus::Timeout, "one node may have it");
}

/// Lists the members of a group in pages; returns the page sizes.
async fn list(sender: &mut DialInLink, group: &'static str, page_size: i64) -> Vec<usize> {
    let (mut sizes, mut ids, mut token) = (Vec::new(), Vec::new(), None);
    loop {
        let group = group.into();
        let query =
            GroupMemberQuery { group, ack_id: 20, page_size: Some(page_size), top: None, continuation_token: token };
        sender.send(ServiceMessage::GroupMemberQuery(query));
        let page = MemberPage::from_payload(&sender.ack().await.payload.unwrap()).unwrap();
        sizes.push(page.members.len());
        ids.extend(page.members.into_iter().map(|member| member.connection_id));
        match page.continuation_token {
            None => break,
            next => token = next,
        }
    }
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count, "nobody is listed twice");
    sizes
}

#[tokio::test(crate = "paused")]
async fn a_client_at_another_node_is_asked_for_a_result_and_its_answer_finds_back() {
    let (_network, nodes) = dial_in_nodes(3).await;
    let mut home = DialInLink::open(&nodes[2], "home_1", ONE).await;
    let mut client = home.client(&nodes[2], "ann").await;
    let elsewhere = DialInLink::open(&nodes[1], "home_1", ONE).await;
    let mut sender = DialInLink::open(&nodes[0], "sender_1", ONE).await;
    settle().await;
    let question = |invocation: &str, connection: &str| {
        ServiceMessage::ClientInvocation(ClientInvocation {
            invocation_id: invocation.into(),
            connection_id: connection.into(),
            caller_server_id: "sender_1".into(),
            payloads: json("question"),
        })
    };
    for (number, link) in [("1", &home.to_node.clone()), ("2", &elsewhere.to_node)] {
        sender.send(question(number, &client.id));
        assert_eq!(client.text().await, "question");
        let ServiceMessage::ClientInvocation(told) = home.next().await else { panic!("its app server is not told") };
        assert_eq!(told.invocation_id, number);
        // The client's own app server identifies itself as the caller.
        let answer = ServiceMessage::ClientCompletion(ClientCompletion {
            invocation_id: told.invocation_id,
            connection_id: told.connection_id,
            caller_server_id: "home_1".into(),
            protocol: "json".into(),
            payload: Bytes::from_static(b"42"),
        });
        link.send(Message::Binary(answer.to_frame())).unwrap();
        let ServiceMessage::ClientCompletion(answer) = sender.next().await else { panic!("no answer") };
        assert_eq!(
            (&*answer.invocation_id, &*answer.caller_server_id, &*answer.payload),
            (number, "sender_1", &b"42"[..])
        );
    }
    let failed = |message| match message {
        ServiceMessage::ErrorCompletion(error) => error.invocation_id.to_string(),
        other => panic!("{other:?} instead of an error"),
    };
    sender.send(question("3", "nobody at all, and long enough"));
    assert_eq!(failed(sender.next().await), "3");
    sender.send(question("4", &client.id));
    assert_eq!(client.text().await, "question");
    assert!(matches!(home.next().await, ServiceMessage::ClientInvocation(told) if told.invocation_id == "4"));
    client.close().await;
    assert_eq!(failed(sender.next().await), "4");
    assert!(matches!(home.next().await, ServiceMessage::CloseConnection(_)));
    let mut client = home.client(&nodes[2], "ben").await;
    settle().await;
    sender.send(question("5", &client.id));
    assert_eq!(client.text().await, "question");
    nodes[2].fleet.members().leave().await;
    assert_eq!(failed(sender.next().await), "5");
}

/// Receives the next node for which a link is requested, over either link: a single node asks.
async fn next_target(one: &mut DialInLink, other: &mut DialInLink) -> String {
    tokio::select! {
        target = one.targets.recv() => target.unwrap(),
        target = other.targets.recv() => target.unwrap(),
    }
}

fn forget_targets(one: &mut DialInLink, other: &mut DialInLink) {
    drop([one.targets(), other.targets()]);
}

fn links_at(node: &FleetNode, instance: &str) -> usize {
    let hub = node.fixture.shared.hubs.keyed(HUB);
    let pools = hub.map(|hub| hub.pools()).unwrap_or_default();
    pools.iter().find(|pool| pool.app.instance == instance).map_or(0, |pool| pool.open_links())
}

#[tokio::test(crate = "paused")]
async fn a_node_without_links_gets_one_for_the_asking_or_carried_by_another() {
    let (_network, nodes) = dial_in_nodes(3).await;
    let [_, n2, n3] = [0, 1, 2].map(|at: usize| nodes[at].fixture.shared.boot.clone());
    let mut first = DialInLink::open(&nodes[0], "home_1", ONE).await;
    let target = first.targets.recv().await.unwrap();
    let other = first.targets.recv().await.unwrap();
    let mut asked = [target, other];
    asked.sort_unstable();
    let mut expected = [n2.clone(), n3.clone()];
    expected.sort_unstable();
    assert_eq!(asked, expected);
    // The load balancer connects one link to the right node, and the other link to a wrong node.
    let mut second = DialInLink::dial(&nodes[1], "home_1", ONE, Some(&n2)).await.unwrap();
    let refused = DialInLink::dial(&nodes[1], "home_1", ONE, Some(&n3)).await.err().unwrap();
    assert!(refused.contains("another node"), "{refused}");
    settle().await;
    forget_targets(&mut first, &mut second);
    for _ in 0..3 {
        assert_eq!(next_target(&mut first, &mut second).await, n3, "the other one has a link");
    }
    let mut carried = DialInLink::dial(&nodes[1], "home_1", ONE, Some(&n3)).await.unwrap();
    until(NEWS, "it has come to its node", || links_at(&nodes[2], "home_1") == 1).await;
    assert_eq!(links_at(&nodes[1], "home_1"), 1, "a carried link is none of the node that carries it");
    settle().await;
    let mut client = carried.client(&nodes[2], "ann").await;
    settle().await;
    first.send(broadcast("hello"));
    assert_eq!(client.text().await, "hello");
    settle().await;
    carried.fence(&mut client).await;
    // A direct link is preferred.
    forget_targets(&mut first, &mut second);
    assert_eq!(next_target(&mut first, &mut second).await, n3);
    let mut direct = DialInLink::dial(&nodes[2], "home_1", ONE, Some(&n3)).await.unwrap();
    until(Duration::from_secs(2), "the carried one gets no more clients", || links_at(&nodes[2], "home_1") == 1).await;
    // The client moves to the direct link without losing messages, as when a second link is closed.
    carried.pass_client_on(&mut direct).await;
    carried.ended().await;
    direct.fence(&mut client).await;
    forget_targets(&mut first, &mut second);
    tokio::time::sleep(Duration::from_secs(200)).await; // sleep: longer than any request interval
    assert_eq!([first.targets(), second.targets()].concat(), [""; 0]);
}

#[tokio::test(crate = "paused")]
async fn proxies_with_endpoints_of_their_own_dont_ask_for_each_others_links() {
    let (_network, nodes) = dial_in_nodes(3).await;
    let mut one = DialInLink::open(&nodes[0], "home_1", ONE).await;
    let mut two = DialInLink::open(&nodes[1], "home_1", TWO).await;
    // Another app server connects to both, then loses one link.
    let mut other = DialInLink::open(&nodes[0], "home_2", ONE).await;
    let lost = DialInLink::open(&nodes[1], "home_2", TWO).await;
    let third = DialInLink::open(&nodes[2], "home_1", TWO).await;
    let third_too = DialInLink::open(&nodes[2], "home_2", TWO).await;
    settle().await;
    drop(lost);
    tokio::time::sleep(Duration::from_secs(25)).await; // sleep: longer than it takes to request a link
    assert_eq!([one.targets(), two.targets(), other.targets()].concat(), [""; 0]);
    let mut asked = third_too;
    assert!(asked.targets().iter().all(|boot| *boot == nodes[1].fixture.shared.boot));
    drop(third);
}

#[tokio::test(crate = "paused")]
async fn app_servers_of_all_nodes_are_told() {
    let (_network, nodes) = dial_in_nodes(2).await;
    let _one = DialInLink::open(&nodes[0], "home_1", ONE).await;
    let two = DialInLink::open(&nodes[1], "home_2", ONE).await;
    settle().await;
    let known = |node: &FleetNode| node.fixture.shared.other_nodes().app_servers(HUB);
    assert_eq!((known(&nodes[0]), known(&nodes[1])), (vec!["home_2".to_owned()], vec!["home_1".to_owned()]));
    drop(two);
    settle().await;
    assert!(known(&nodes[0]).is_empty());
    let status = super::http::exchange(&nodes[0].fixture, "GET", "/server/?hub=bench", "").await.0;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(crate = "paused")]
async fn sends_that_overtake_the_answer_to_the_hub_handshake_arrive_once_behind_it() {
    let (_network, nodes) = dial_in_nodes(1).await;
    let mut link = DialInLink::open(&nodes[0], "silent_1", ONE).await;
    let target = format!("/client/{HUB}&access_token={}", token("client", "ann"));
    let mut client = Client::upgrade(&nodes[0].fixture, &target).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    let ServiceMessage::OpenConnection(open) = link.next().await else { panic!("no opening") };
    client.id = open.connection_id.to_string();
    let ServiceMessage::ConnectionData(handshake) = link.next().await else { panic!("no handshake") };
    // `OnConnectedAsync` runs concurrently with the response.
    link.send(ServiceMessage::JoinGroupWithAck(membership(&client.id, "red", 7)));
    link.send(to_group("red", "red"));
    link.send(to_user("ann", "ann"));
    link.send(broadcast("all"));
    link.send(to_connection(&client.id, "own"));
    assert_eq!(link.ack().await.status, AckStatus::Ok);
    let answer = ConnectionData { payload: Bytes::from_static(b"{}\x1e"), ..handshake };
    link.send(ServiceMessage::ConnectionData(answer));
    for text in ["{}", "red", "ann", "all", "own"] {
        assert_eq!(client.text().await, text);
    }
    link.fence(&mut client).await;
}

#[tokio::test(crate = "paused")]
async fn the_user_of_a_closed_client_is_remembered() {
    let (_network, nodes) = dial_in_nodes(1).await;
    let mut home = DialInLink::open(&nodes[0], "home_1", ONE).await;
    let client = home.client(&nodes[0], "ann").await;
    let id = client.id.clone();
    client.close().await;
    assert!(matches!(home.next().await, ServiceMessage::CloseConnection(_)));
    assert_eq!(nodes[0].fixture.shared.past(&id).unwrap().user.as_deref(), Some("ann"));
}
