//! Property test of the dispatcher: with any order of client messages, each call completes once and no state remains.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::State;
use futures_util::stream::{self, Stream, StreamExt};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use trunkline_link::LinkOutbox;
use trunkline_protocol::hub::{HandshakeRequest, HubProtocol};
use trunkline_protocol::service::{Attachment, Capabilities, ErrorCompletion, FrameBuffer, Payloads, ServiceMessage};

use super::*;
use crate::metrics::Metrics;
use crate::node::{next_piece, open_outbox};
use crate::sync::lock;
use crate::{Cancellation, Hub, UploadStream};

const ID: &str = "c1";

#[derive(Debug, Clone)]
enum ClientAction {
    Call {
        method: usize,
        has_id: bool,
    },
    /// A call that reuses an earlier ID.
    CallAgain {
        earlier: usize,
        method: usize,
    },
    Item {
        call: usize,
        fits: bool,
    },
    EndUpload {
        call: usize,
        fails: bool,
    },
    Cancel {
        call: usize,
    },
    /// Answers a request that may not exist.
    Answer {
        request: usize,
        is_error: bool,
    },
    OpenGate,
    LetRun,
    Abort,
    Leave,
}

fn action() -> impl Strategy<Value = ClientAction> {
    let any_call = 0..12_usize;
    prop_oneof![
        8 => (0..METHODS.len(), prop::bool::weighted(0.8)).prop_map(|(method, has_id)| ClientAction::Call { method, has_id }),
        1 => (any_call.clone(), 0..METHODS.len()).prop_map(|(earlier, method)| ClientAction::CallAgain { earlier, method }),
        6 => (any_call.clone(), prop::bool::weighted(0.9)).prop_map(|(call, fits)| ClientAction::Item { call, fits }),
        3 => (any_call.clone(), any::<bool>()).prop_map(|(call, fails)| ClientAction::EndUpload { call, fails }),
        3 => any_call.prop_map(|call| ClientAction::Cancel { call }),
        2 => (0..4_usize, any::<bool>()).prop_map(|(request, is_error)| ClientAction::Answer { request, is_error }),
        2 => Just(ClientAction::OpenGate),
        4 => Just(ClientAction::LetRun),
        1 => prop_oneof![Just(ClientAction::Abort), Just(ClientAction::Leave), Just(ClientAction::LetRun), Just(ClientAction::LetRun)],
    ]
}

/// Methods of the hub: name, message type, arguments, number of uploads.
const METHODS: [(&str, u8, &str, usize); 14] = [
    ("Quick", 1, "[1]", 0),
    ("Gated", 1, "[]", 0),
    ("Cancellable", 1, "[]", 0),
    ("Fail", 1, "[]", 0),
    ("Nowhere", 1, "[]", 0),
    ("Quick", 1, "[]", 0),
    ("AskCaller", 1, "[]", 0),
    ("AskStranger", 1, "[]", 0),
    ("Count", 4, "[3]", 0),
    ("Endless", 4, "[]", 0),
    ("BreakOff", 4, "[]", 0),
    ("Sum", 1, "[]", 2),
    ("First", 1, "[]", 1),
    ("Echo", 4, "[]", 1),
];

#[derive(Clone)]
struct TestState {
    gate: Arc<Semaphore>,
    farewells: Arc<AtomicU32>,
}

async fn gated(State(state): State<TestState>) {
    let _ = state.gate.acquire().await;
}

async fn cancellable(State(state): State<TestState>, cancelled: Cancellation) {
    tokio::select! {
        () = cancelled.cancelled() => {}
        _ = state.gate.acquire() => {}
    }
}

async fn endless(State(state): State<TestState>) -> impl Stream<Item = u8> {
    stream::iter([1, 2]).chain(stream::once(async move {
        let _ = state.gate.acquire().await;
        3
    }))
}

async fn break_off() -> Result<impl Stream<Item = Result<u8, HubError>>, HubError> {
    tokio::task::yield_now().await;
    Ok(stream::iter([Ok(1), Err(HubError::new("enough"))]))
}

async fn sum(mut left: UploadStream<u32>, mut right: UploadStream<u32>) -> Result<u32, HubError> {
    let mut sum = 0;
    while let Some(item) = left.next().await {
        sum += item?;
    }
    while let Some(item) = right.next().await {
        sum += item?;
    }
    Ok(sum)
}

async fn first(mut items: UploadStream<u32>) -> Result<Option<u32>, HubError> {
    items.next().await.transpose()
}

async fn ask(ctx: Context, client: crate::Client) -> Result<u32, HubError> {
    tokio::task::yield_now().await;
    let _ = ctx;
    Ok(client.invoke("Ask", ()).await?)
}

fn hub(state: TestState) -> Hub {
    Hub::new("/test")
        .inbox_max_bytes(400)
        .waiting_inbox_max_bytes(900)
        .upload_max_items(2)
        .on_connected(async || tokio::task::yield_now().await)
        .on_disconnected(async |State(state): State<TestState>| {
            state.farewells.fetch_add(1, Ordering::Relaxed);
        })
        .method("Quick", async |n: u32| n)
        .method("Gated", gated)
        .method("Cancellable", cancellable)
        .method("Fail", async || Err::<(), _>(HubError::new("as asked")))
        .method("AskCaller", async |ctx: Context| ask(ctx.clone(), ctx.clients().caller()).await)
        .method("AskStranger", async |ctx: Context| ask(ctx.clone(), ctx.clients().client("stranger")).await)
        .method("Count", async |to: u32| stream::iter(0..to))
        .method("Endless", endless)
        .method("BreakOff", break_off)
        .method("Sum", sum)
        .method("First", first)
        .method("Echo", async |items: UploadStream<u32>| items)
        .with_state(state)
}

/// A dispatcher, one client and the proxy between them.
struct Simulation {
    hub: Arc<Dispatcher>,
    node: Arc<Node>,
    outbox: Arc<LinkOutbox>,
    socket: Attachment,
    frames: FrameBuffer,
    due: Arc<RunQueue<Arc<Connection>>>,
    state: TestState,
    connection: Arc<Connection>,
    is_open: bool,
    /// Methods and IDs of all calls sent.
    calls: Vec<(usize, Option<String>)>,
    requests: Vec<String>,
    completed: HashMap<String, usize>,
}

impl Simulation {
    async fn begin() -> Self {
        let state = TestState { gate: Arc::new(Semaphore::new(0)), farewells: Arc::default() };
        let built = hub(state.clone()).build().unwrap();
        let outbound = Outbound::new("test", Metrics::new().hub("test"));
        let hub = Dispatcher::new(built, "me".into(), outbound, TaskTracker::new());
        let (outbox, socket) = open_outbox(usize::MAX);
        let outbox = Arc::new(outbox);
        let node = hub.core.outbound.begin_session(
            crate::node::NodeName::proxy("node", "boot"),
            Capabilities::plain(),
            0,
            Arc::clone(&outbox),
        );
        let open =
            OpenConnection { connection_id: ID.into(), protocol: Some("json".into()), ..OpenConnection::default() };
        let mut frames = FrameBuffer::default();
        frames.push(ServiceMessage::OpenConnection(open).to_frame());
        let body = frames.next_body().unwrap().unwrap();
        let Ok(Some(ServiceMessage::OpenConnection(open))) = ServiceMessage::decode(&body) else { panic!("{body:?}") };
        hub.handle_open(LinkId(1), &node, &body, open);
        let connection = hub.core.connections.get(ID).unwrap();
        let mut simulation = Self {
            hub,
            node,
            outbox,
            socket,
            due: Arc::default(),
            frames,
            state,
            connection,
            is_open: true,
            calls: Vec::new(),
            requests: Vec::new(),
            completed: HashMap::new(),
        };
        simulation.push(HandshakeRequest { protocol: HubProtocol::Json, version: 1 }.encode());
        simulation.let_run().await;
        simulation
    }

    fn push(&self, payload: Bytes) {
        let data = ConnectionData { connection_id: ID.into(), payload, ..ConnectionData::default() };
        let mut due = self.hub.handle_data(data, None).into_iter().collect();
        self.hub.start_workers(&self.due, self.due.push(&mut due, std::time::Instant::now()));
    }

    fn send(&self, message: &Value) {
        self.push(format!("{message}\x1e").into());
    }

    async fn act(&mut self, action: &ClientAction) {
        match action {
            ClientAction::Call { method, has_id } => {
                self.call(*method, has_id.then(|| format!("i{}", self.calls.len())))
            }
            ClientAction::CallAgain { earlier, method } => {
                let id = self.calls.get(*earlier).and_then(|(_, id)| id.clone());
                self.call(*method, id);
            }
            ClientAction::Item { call, fits } => {
                let item = if *fits { json!(1) } else { json!("one") };
                self.send(&json!({"type": 2, "invocationId": format!("u{call}-0"), "item": item}));
            }
            ClientAction::EndUpload { call, fails } => self.end_uploads(*call, *fails),
            ClientAction::Cancel { call } => {
                let id = self.calls.get(*call).and_then(|(_, id)| id.clone()).unwrap_or_else(|| "none".into());
                self.send(&json!({"type": 5, "invocationId": id}));
            }
            ClientAction::Answer { request, is_error } => {
                let id = self.requests.get(*request).cloned().unwrap_or_else(|| "s999".into());
                let (key, outcome) = if *is_error { ("error", json!("no")) } else { ("result", json!(1)) };
                self.send(&json!({"type": 3, "invocationId": id, key: outcome}));
            }
            ClientAction::OpenGate => self.state.gate.add_permits(1),
            ClientAction::LetRun => self.let_run().await,
            ClientAction::Abort => {
                self.is_open = false;
                self.hub.context(&self.connection, CallKind::DisconnectHook).abort();
            }
            ClientAction::Leave => self.leave(),
        }
    }

    fn leave(&mut self) {
        self.is_open = false;
        self.hub.handle_close(&self.node, CloseConnection { connection_id: ID.into(), ..CloseConnection::default() });
    }

    fn call(&mut self, method: usize, id: Option<String>) {
        let (target, kind, arguments, uploads) = METHODS[method];
        let number = self.calls.len();
        let id = id.or_else(|| (kind == 4).then(|| format!("i{number}")));
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        let stream_ids: Vec<_> = (0..uploads).map(|at| format!("u{number}-{at}")).collect();
        let mut message = json!({"type": kind, "target": target, "arguments": arguments, "streamIds": stream_ids});
        if let Some(id) = &id {
            message["invocationId"] = json!(id);
        }
        self.calls.push((method, id));
        self.send(&message);
    }

    fn end_uploads(&self, call: usize, fails: bool) {
        for at in 0..2 {
            let mut end = json!({"type": 3, "invocationId": format!("u{call}-{at}")});
            if fails {
                end["error"] = json!("cut");
            }
            self.send(&end);
        }
    }

    async fn let_run(&mut self) {
        for _ in 0..40 {
            tokio::task::yield_now().await;
            self.receive();
        }
    }

    /// Reads the frames to the proxy: counts completions, records requests, denies unknown clients.
    fn receive(&mut self) {
        while let Some(piece) = next_piece(&self.outbox, self.socket) {
            self.frames.push(piece.bytes);
        }
        while let Some(body) = self.frames.next_body().unwrap() {
            match ServiceMessage::decode(&body).unwrap().unwrap() {
                ServiceMessage::ConnectionData(data) => {
                    for message in messages(&data.payload) {
                        if message["type"] == 3 {
                            let id = message["invocationId"].as_str().unwrap().to_owned();
                            *self.completed.entry(id).or_default() += 1;
                        }
                    }
                }
                ServiceMessage::MultiConnectionData(data) => self.note(&data.payloads),
                ServiceMessage::ClientInvocation(request) => {
                    let refusal = ErrorCompletion {
                        invocation_id: request.invocation_id,
                        connection_id: request.connection_id,
                        caller_server_id: request.caller_server_id,
                        error: "Connection 'stranger' does not exist.".into(),
                    };
                    self.hub.handle(LinkId(1), &self.node, ServiceMessage::ErrorCompletion(refusal));
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, payloads: &Payloads) {
        for message in messages(payloads.get(HubProtocol::Json).unwrap()) {
            self.requests.push(message["invocationId"].as_str().unwrap().to_owned());
        }
    }

    /// Lets everything complete while the client stays connected.
    async fn wind_up(&mut self) {
        self.state.gate.add_permits(1000);
        for _ in 0..self.calls.len() + 2 {
            self.let_run().await;
            for request in std::mem::take(&mut self.requests) {
                self.send(&json!({"type": 3, "invocationId": request, "result": 1}));
            }
            (0..self.calls.len()).for_each(|call| self.end_uploads(call, false));
        }
        self.let_run().await;
    }

    /// Expected number of completions per ID.
    fn expected(&self) -> HashMap<String, usize> {
        let mut expected = HashMap::new();
        for (_, id) in &self.calls {
            if let Some(id) = id {
                *expected.entry(id.clone()).or_default() += 1;
            }
        }
        expected
    }

    fn check_nothing_is_left(&self) {
        assert_eq!(self.connection.inbox().left_over(), Vec::<String>::new());
        assert_eq!(lock(&self.hub.core.client_results).len(), 0);
        let metrics = &self.hub.core.outbound.metrics;
        assert_eq!((metrics.running.get(), metrics.streams.get(), metrics.client_results_waiting.get()), (0, 0, 0));
    }
}

fn messages(payload: &Bytes) -> Vec<Value> {
    payload
        .split(|byte| *byte == 0x1e)
        .filter(|text| !text.is_empty())
        .map(|text| serde_json::from_slice(text).unwrap())
        .collect()
}

async fn simulate(actions: Vec<ClientAction>) {
    let mut simulation = Simulation::begin().await;
    for action in &actions {
        if !simulation.is_open {
            break;
        }
        simulation.act(action).await;
    }
    let stayed = simulation.is_open;
    simulation.wind_up().await;
    let expected = simulation.expected();
    if stayed {
        assert_eq!(simulation.completed, expected);
        simulation.check_nothing_is_left();
        simulation.leave();
        simulation.let_run().await;
    }
    for (id, times) in &simulation.completed {
        assert!(*times <= expected[id], "{id}");
    }
    simulation.check_nothing_is_left();
    assert_eq!(simulation.state.farewells.load(Ordering::Relaxed), 1);
    assert_eq!(simulation.hub.tasks.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_call_completes_once_and_nothing_is_left(actions in vec(action(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(simulate(actions));
    }
}

#[test]
fn an_idle_connection_is_small() {
    // In addition: a registry entry (8 bytes and its share of the table), the reference counts, and the opening
    // frame; its size depends on headers and claims.
    assert!(size_of::<Connection>() <= 208, "{}", size_of::<Connection>());
}
