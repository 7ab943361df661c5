//! Tests of sends to one client with a fake proxy: what waits for the client, what does not, and how waits end.

use std::time::Duration;

use futures_util::future::{FutureExt, join_all};
use futures_util::stream;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trunkline_link::LinkOutbox;
use trunkline_protocol::hub::{Close, HandshakeRequest};
use trunkline_protocol::service::{Attachment, Capabilities, DownMark, FrameBuffer};

use super::*;
use crate::clients::{Clients, Sent};
use crate::error::{InvokeError, SendError};
use crate::hub_core::WAITING_SENDS_MAX;
use crate::metrics::Metrics;
use crate::node::{NodeName, next_piece, open_outbox};
use crate::{Context as HubContext, Hub};

const LIMIT: usize = 1024 * 1024;
const ITEM_BYTES: usize = 16_000;
/// Number of messages of [`ITEM_BYTES`] that fit into a window.
const ITEMS: usize = 16;
const LONG: Duration = Duration::from_secs(3_600);

struct FakeLink {
    node: Arc<Node>,
    outbox: Arc<LinkOutbox>,
    socket: Attachment,
}

/// A hub and its first proxy.
struct Bench {
    hub: Arc<Dispatcher>,
    link: FakeLink,
    metrics: Metrics,
}

impl FakeLink {
    /// Reads the frames that the proxy has received.
    fn received(&self) -> Vec<ServiceMessage> {
        let mut frames = FrameBuffer::default();
        std::iter::from_fn(|| next_piece(&self.outbox, self.socket)).for_each(|piece| frames.push(piece.bytes));
        let bodies = std::iter::from_fn(|| frames.next_body().unwrap());
        bodies.map(|body| ServiceMessage::decode(&body).unwrap().unwrap()).collect()
    }

    fn marks(&self) -> Vec<i64> {
        marks(&self.received())
    }
}

fn marks(received: &[ServiceMessage]) -> Vec<i64> {
    let mark = |message: &ServiceMessage| match message {
        ServiceMessage::DownMark(mark) => Some(mark.number),
        _ => None,
    };
    received.iter().filter_map(mark).collect()
}

/// One letter per frame: `d` for a message to one client, `m` for a mark, `x` for others.
fn shape(received: &[ServiceMessage]) -> String {
    let letter = |message: &ServiceMessage| match message {
        ServiceMessage::DownMark(_) => 'm',
        ServiceMessage::ConnectionData(_) | ServiceMessage::MultiConnectionData(_) => 'd',
        _ => 'x',
    };
    received.iter().map(letter).collect()
}

impl Bench {
    fn new(limit: Option<usize>, is_stateful: bool) -> Self {
        let hub = Hub::new("/test")
            .stateful_reconnect(is_stateful)
            .method("Quick", async || "done")
            .method("Large", async || "x".repeat(LIMIT))
            .method("Wait", std::future::pending::<()>)
            .method("Endless", async || stream::repeat_with(|| "x".repeat(ITEM_BYTES)))
            .method("Loop", async |ctx: HubContext| {
                while ctx.clients().caller().send("M", ("x".repeat(ITEM_BYTES),)).await.unwrap().proxies() > 0 {}
            });
        let hub = hub.build().unwrap();
        let metrics = Metrics::new();
        let outbound = Outbound::new("test", metrics.hub("test"));
        let hub = Dispatcher::new(hub, "me".into(), outbound, TaskTracker::new());
        let link = begin(&hub, "first", 0, limit);
        Self { hub, link, metrics }
    }

    /// Opens a client at the first proxy. Its home is link 1.
    async fn open(&self, id: &'static str) -> Arc<Connection> {
        let open =
            OpenConnection { connection_id: id.into(), protocol: Some("json".into()), ..OpenConnection::default() };
        let body = ServiceMessage::OpenConnection(open).to_body();
        let Ok(Some(ServiceMessage::OpenConnection(open))) = ServiceMessage::decode(&body) else { panic!("{body:?}") };
        self.hub.handle_open(LinkId(1), &self.link.node, &body, open);
        self.data(id, HandshakeRequest { protocol: HubProtocol::Json, version: 1 }.encode()).await;
        self.link.received();
        self.hub.core.connections.get(id).unwrap()
    }

    async fn data(&self, id: &'static str, payload: impl Into<Bytes>) {
        let data = ConnectionData { connection_id: id.into(), payload: payload.into(), ..ConnectionData::default() };
        if let Some(connection) = self.hub.handle_data(data, None) {
            self.hub.spawn_worker(&connection);
        }
        settle().await;
    }

    async fn call(&self, kind: u8, target: &str) {
        let text =
            format!("{{\"type\":{kind},\"invocationId\":\"{target}\",\"target\":\"{target}\",\"arguments\":[]}}\x1e");
        self.data("c1", text).await;
    }

    fn clients(&self) -> Clients {
        Clients::new(&self.hub.core)
    }

    async fn send(&self, id: &str, bytes: usize) -> Result<Sent, SendError> {
        self.clients().client(id).send("M", ("x".repeat(bytes),)).await
    }

    /// Sends until a send would wait, and drops that one. Returns the number of completed sends.
    fn fill(&self, id: &str) -> usize {
        (0..100).take_while(|_| self.send(id, ITEM_BYTES).now_or_never().is_some()).count()
    }

    /// Starts a send to `c1` that waits.
    async fn waiting(&self) -> JoinHandle<usize> {
        let client = self.clients().client("c1");
        let sending =
            tokio::spawn(async move { client.send("M", ("late".repeat(ITEM_BYTES / 4),)).await.unwrap().proxies() });
        settle().await;
        assert!(!sending.is_finished());
        sending
    }

    fn report(&self, number: i64) {
        let report = DownMark { connection_id: "c1".into(), number };
        self.hub.handle(LinkId(1), &Arc::new(Node::unlinked()), ServiceMessage::DownDone(report));
    }

    fn flow(&self, link: LinkId, node: &Arc<Node>, operation: FlowOperation) {
        let (connection_id, subject) = ("c1".into(), FlowSubject::Client);
        let control = ConnectionFlowControl { connection_id, subject, operation };
        self.hub.handle(link, node, ServiceMessage::ConnectionFlowControl(control));
    }
}

fn begin(hub: &Arc<Dispatcher>, name: &str, slot: u32, limit: Option<usize>) -> FakeLink {
    let (outbox, socket) = open_outbox(100 * 1024 * 1024);
    let outbox = Arc::new(outbox);
    let capabilities = Capabilities { client_message_max_bytes: limit, ..Capabilities::plain() };
    let node =
        hub.core.outbound.begin_session(NodeName::proxy(name, "boot"), capabilities, slot.into(), Arc::clone(&outbox));
    FakeLink { node, outbox, socket }
}

async fn settle() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sends_to_one_client_wait_for_that_client_alone() {
    for is_stateful in [false, true] {
        let bench = Bench::new(Some(LIMIT), is_stateful);
        let connection = bench.open("c1").await;
        bench.open("c2").await;
        assert_eq!(bench.fill("c1"), ITEMS);
        let received = bench.link.received();
        assert_eq!(shape(&received), "dddddmdddddmdddddmd", "a mark behind each 64 KiB, in line with the data");
        let mut sending = Box::pin(bench.send("c1", ITEM_BYTES));
        assert!(timeout(LONG, &mut sending).await.is_err());
        assert!(bench.send("c2", ITEM_BYTES).now_or_never().is_some());
        assert!(bench.clients().all().send("M", ()).now_or_never().is_some());
        assert!(bench.clients().clients(["c1", "c2"]).send("M", ()).now_or_never().is_some());
        assert!(bench.clients().user("ann").send("M", ()).now_or_never().is_some());
        bench.hub.core.to(&connection).ping();
        assert_eq!(bench.link.received().len(), 5);
        bench.report(marks(&received)[0]);
        assert_eq!(sending.await.unwrap().proxies(), 1);
        assert_eq!(bench.fill("c1"), 4, "as much as the report has freed");
        bench.report(i64::MAX);
        assert!(connection.inbox().window.last_mark().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn without_support_for_marks_no_send_waits_and_no_mark_is_sent() {
    let bench = Bench::new(None, true);
    bench.open("c1").await;
    assert_eq!(bench.fill("c1"), 100);
    bench.call(1, "Large").await;
    assert_eq!(shape(&bench.link.received()), "d".repeat(101));
}

#[tokio::test(start_paused = true)]
async fn waiting_senders_keep_their_order() {
    let bench = Bench::new(Some(LIMIT), false);
    bench.open("c1").await;
    bench.fill("c1");
    let last = *bench.link.marks().last().unwrap();
    let sends = (0..5).map(|number| {
        let client = bench.clients().client("c1");
        tokio::spawn(async move { client.send("M", (number, "x".repeat(ITEM_BYTES))).await })
    });
    let sends = sends.collect::<Vec<_>>();
    settle().await;
    assert!(bench.send("c1", 1).now_or_never().is_none(), "the order is kept");
    bench.report(last);
    join_all(sends).await;
    let numbers = bench.link.received().into_iter().filter_map(|message| match message {
        ServiceMessage::MultiConnectionData(data) => {
            let payload = data.payloads.get(HubProtocol::Json)?;
            let call: Value = serde_json::from_slice(payload.strip_suffix(b"\x1e")?).ok()?;
            call["arguments"][0].as_u64()
        }
        _ => None,
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_connection_ends_its_waits() {
    type End = fn(&Bench, &Arc<Connection>);
    let ends: [End; 3] = [
        |bench, _| {
            let close = CloseConnection { connection_id: "c1".into(), ..CloseConnection::default() };
            bench.hub.handle_close(&bench.link.node, close);
        },
        |bench, client| bench.hub.ends.close(client, Close::default(), ConnectionClose::new(Cause::AppClosed)),
        |bench, _| bench.hub.handle_link_ended(LinkId(1), &ConnectionClose::new(Cause::LinkLost)),
    ];
    for end in ends {
        let bench = Bench::new(Some(LIMIT), false);
        let connection = bench.open("c1").await;
        bench.fill("c1");
        let sending = bench.waiting().await;
        let client = bench.clients().client("c1");
        let asking = tokio::spawn(async move { client.invoke::<u8>("Ask", ()).await });
        bench.call(1, "Quick").await;
        bench.link.received();
        end(&bench, &connection);
        assert_eq!(sending.await.unwrap(), 0, "no proxy took it");
        assert!(matches!(asking.await.unwrap(), Err(InvokeError::Disconnected(_))));
        settle().await;
        let late = bench.link.received().into_iter().filter(|message| format!("{message:?}").contains("late"));
        assert_eq!(late.count(), 0);
        bench.hub.tasks.close();
        bench.hub.tasks.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_client_that_another_app_server_gets_becomes_a_send_to_it_there() {
    let bench = Bench::new(Some(LIMIT), false);
    let connection = bench.open("c1").await;
    bench.fill("c1");
    let sending = bench.waiting().await;
    bench.link.received();
    bench.hub.reassignments.begin_reassignment(&connection);
    settle().await;
    assert!(!bench.hub.core.connections.contains(&connection), "no wait holds a reassignment up");
    assert_eq!(sending.await.unwrap(), 1);
    assert_eq!(shape(&bench.link.received()), "xd");
}

#[tokio::test(start_paused = true)]
async fn after_a_move_the_new_node_reports_the_marks() {
    for (limit, stays) in [(Some(LIMIT), false), (None, false), (Some(LIMIT), true)] {
        let bench = Bench::new(Some(LIMIT), true);
        bench.open("c1").await;
        let new = begin(&bench.hub, "second", 0, limit);
        bench.fill("c1");
        let last = *bench.link.marks().last().unwrap();
        let sending = bench.waiting().await;
        bench.flow(LinkId(1), &bench.link.node, FlowOperation::Pause);
        assert_eq!(shape(&bench.link.received()), "x", "the acknowledgement waits for no window");
        let (link, node) = if stays { (&bench.link, &bench.link.node) } else { (&new, &new.node) };
        bench.flow(LinkId(2), node, FlowOperation::Resume);
        settle().await;
        if limit.is_some() {
            assert_eq!(link.marks(), [last]);
            assert!(!sending.is_finished());
            bench.report(last);
        }
        assert_eq!(sending.await.unwrap(), 1);
        assert_eq!(shape(&link.received()), "d");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_may_be_lost_with_a_link_is_sent_again_over_the_next_one() {
    let bench = Bench::new(Some(LIMIT), false);
    bench.open("c1").await;
    let next = begin(&bench.hub, "first", 1, Some(LIMIT));
    bench.fill("c1");
    let last = *bench.link.marks().last().unwrap();
    let sending = bench.waiting().await;
    bench.hub.core.outbound.end_session(&bench.link.node, 0);
    bench.hub.handle_link_ended(LinkId(7), &ConnectionClose::new(Cause::LinkLost));
    assert_eq!(next.marks(), [last]);
    bench.report(last);
    assert_eq!(sending.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_any_size_that_the_node_takes_waits_for_an_empty_window_only() {
    let bench = Bench::new(Some(LIMIT), false);
    bench.open("c1").await;
    assert!(bench.send("c1", LIMIT - 100).now_or_never().is_some());
    assert_eq!(shape(&bench.link.received()), "dm");
    assert!(bench.send("c1", 1).now_or_never().is_none());
    bench.report(i64::MAX);
    bench.send("c1", 100).await.unwrap();
    let mut sending = Box::pin(bench.send("c1", LIMIT - 100));
    assert!(timeout(LONG, &mut sending).await.is_err());
    let received = bench.link.received();
    assert_eq!(shape(&received), "dm", "earlier data is marked");
    bench.report(marks(&received)[0]);
    sending.await.unwrap();
    let refused = bench.send("c1", LIMIT).now_or_never().unwrap().unwrap_err();
    assert!(matches!(refused, SendError::TooLarge { limit: LIMIT, .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn results_and_stream_items_wait_and_a_close_does_not() {
    let bench = Bench::new(Some(LIMIT), false);
    let connection = bench.open("c1").await;
    bench.call(4, "Endless").await;
    let received = bench.link.received();
    assert_eq!(received.len(), ITEMS + 3);
    bench.call(1, "Quick").await;
    assert!(bench.link.received().is_empty());
    bench.report(*marks(&received).last().unwrap());
    settle().await;
    let texts = format!("{:?}", bench.link.received());
    assert!(texts.contains("done"), "the result had its turn");
    bench.hub.ends.close(&connection, Close::default(), ConnectionClose::new(Cause::AppClosed));
    assert_eq!(shape(&bench.link.received()), "dx");
    bench.hub.tasks.close();
    bench.hub.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_over_the_limit_of_the_node_is_an_error() {
    let bench = Bench::new(Some(LIMIT), false);
    bench.open("c1").await;
    bench.call(1, "Large").await;
    let [ServiceMessage::ConnectionData(answer)] = &bench.link.received()[..] else { panic!() };
    assert!(answer.payload.len() < 1_000 && String::from_utf8_lossy(&answer.payload).contains("error"));
    let counts = bench.metrics.text();
    assert!(counts.contains("{hub=\"test\",method=\"Large\",outcome=\"failed\"} 1"), "{counts}");
    assert!(!counts.contains("outcome=\"ok\"} 1"), "{counts}");
}

#[tokio::test(start_paused = true)]
async fn a_method_that_sends_in_a_loop_goes_at_the_speed_of_its_client() {
    let bench = Bench::new(Some(LIMIT), false);
    bench.open("c1").await;
    bench.call(1, "Loop").await;
    for _ in 0..10 {
        let received = bench.link.received();
        assert!((5..ITEMS + 4).contains(&received.len()), "{}", received.len());
        bench.report(*marks(&received).last().unwrap());
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn unawaited_sends_are_bounded() {
    let bench = Bench::new(Some(LIMIT), false);
    let connection = bench.open("c1").await;
    bench.fill("c1");
    let last = *bench.link.marks().last().unwrap();
    let mut sends: Vec<_> = (0..WAITING_SENDS_MAX).map(|_| Box::pin(bench.send("c1", ITEM_BYTES))).collect();
    assert!(sends.iter_mut().all(|send| send.now_or_never().is_none()));
    let refused = bench.send("c1", 1).await.unwrap_err();
    assert!(matches!(refused, SendError::TooManyWaiting(WAITING_SENDS_MAX)));
    sends.truncate(10);
    bench.report(last);
    assert_eq!(join_all(sends).await.len(), 10);
    bench.report(i64::MAX);
    assert!(connection.inbox().window.last_mark().is_none(), "nothing is kept");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_acknowledges_messages_is_read_while_a_sender_waits() {
    let bench = Bench::new(Some(LIMIT), true);
    bench.open("c1").await;
    bench.call(1, "Wait").await;
    bench.fill("c1");
    bench.link.received();
    let operations = || {
        let operation = |message| match message {
            ServiceMessage::ConnectionFlowControl(control) => Some(control.operation),
            _ => None,
        };
        bench.link.received().into_iter().filter_map(operation).collect::<Vec<_>>()
    };
    let text = "{\"type\":1,\"target\":\"Quick\",\"arguments\":[]}\x1e";
    bench.data("c1", text.repeat(3_000)).await;
    assert_eq!(operations(), [FlowOperation::Pause]);
    let sending = bench.waiting().await;
    assert_eq!(operations(), [FlowOperation::Resume]);
    bench.report(i64::MAX);
    sending.await.unwrap();
    assert_eq!(operations(), [FlowOperation::Pause]);
}
