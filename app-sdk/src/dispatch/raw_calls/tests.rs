//! Tests of raw connections with a fake proxy.

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use trunkline_link::LinkOutbox;
use trunkline_protocol::service::{
    Attachment, Capabilities, CloseConnection, ConnectionData, FlowOperation, FrameBuffer, OpenConnection, RawKind,
    ServiceMessage,
};
use trunkline_protocol::wire::MIGRATE_TO_HEADER;

use super::super::Dispatcher;
use super::*;
use crate::RawEndpoint;
use crate::connection::LinkId;
use crate::error::RawSendError;
use crate::metrics::Metrics;
use crate::node::{Node, NodeName, next_piece, open_outbox};
use crate::outbound::{Endpoint, Outbound};
use crate::raw::RawMessage;

/// An endpoint with one client and its link to the proxy. The handler gives its connection away.
struct Scene {
    hub: Arc<Dispatcher>,
    node: Arc<Node>,
    outbox: Arc<LinkOutbox>,
    socket: Attachment,
    /// Lets the handler return.
    returns: Arc<Notify>,
}

impl Scene {
    async fn open(settings: impl FnOnce(RawEndpoint) -> RawEndpoint) -> (Self, RawConnection) {
        let (connections, mut opened) = mpsc::unbounded_channel();
        let returns = Arc::<Notify>::default();
        let returning = Arc::clone(&returns);
        let give_away = move |connection: RawConnection| {
            connections.send(connection).unwrap();
            Arc::clone(&returning).notified_owned()
        };
        let endpoint = settings(RawEndpoint::new("/raw", give_away)).build().unwrap();
        let outbound = Outbound::new("raw", Metrics::new().hub("raw"));
        let hub = Dispatcher::new(endpoint, "me".into(), outbound, TaskTracker::new());
        let (outbox, socket) = open_outbox(10_000_000);
        let outbox = Arc::new(outbox);
        let capabilities = Capabilities { client_message_max_bytes: Some(1_000_000), ..Capabilities::plain() };
        let name = NodeName::proxy("a", "boot");
        let node = hub.core.outbound.begin_session(name, capabilities, 0, Arc::clone(&outbox));
        let open = OpenConnection { connection_id: "c1".into(), ..OpenConnection::default() };
        let body = ServiceMessage::OpenConnection(open).to_body();
        let Ok(Some(ServiceMessage::OpenConnection(open))) = ServiceMessage::decode(&body) else { panic!() };
        hub.handle_open(LinkId(1), &node, &body, open);
        let connection = opened.recv().await.unwrap();
        (Self { hub, node, outbox, socket, returns }, connection)
    }

    fn receive(&self, message: impl Into<RawMessage>) {
        let message = message.into();
        let kind = if message.as_text().is_some() { RawKind::Text } else { RawKind::Binary };
        let (connection_id, payload) = ("c1".into(), Bytes::copy_from_slice(message.as_bytes()));
        let data = ConnectionData { connection_id, payload, data_type: kind.data_type(), is_partial: false };
        assert!(self.hub.handle_data(data, None).is_none(), "no worker reads it");
    }

    fn close(&self, headers: Vec<(ByteString, Vec<ByteString>)>) {
        self.hub.handle_close(&self.node, CloseConnection { connection_id: "c1".into(), error: None, headers });
    }

    fn reassign(&self) {
        self.close(vec![(MIGRATE_TO_HEADER.into(), vec!["".into()])]);
    }

    /// Returns the frames for the proxy since the last call.
    fn sent(&self) -> Vec<ServiceMessage> {
        let mut frames = FrameBuffer::default();
        std::iter::from_fn(|| next_piece(&self.outbox, self.socket)).for_each(|piece| frames.push(piece.bytes));
        let bodies = std::iter::from_fn(|| frames.next_body().unwrap());
        bodies.map(|body| ServiceMessage::decode(&body).unwrap().unwrap()).collect()
    }

    fn operations(&self) -> Vec<FlowOperation> {
        let operation = |message: ServiceMessage| match message {
            ServiceMessage::ConnectionFlowControl(control) => control.operation,
            other => panic!("{other:?}"),
        };
        self.sent().into_iter().map(operation).collect()
    }
}

fn movable(endpoint: RawEndpoint) -> RawEndpoint {
    endpoint.movable(true)
}

fn narrow(endpoint: RawEndpoint) -> RawEndpoint {
    endpoint.inbox_max_bytes(4 * size_of::<RawMessage>())
}

#[tokio::test]
async fn messages_are_read_in_their_order_and_the_rest_after_the_end() {
    let (scene, mut connection) = Scene::open(|endpoint| endpoint).await;
    let (first, ()) = tokio::join!(connection.recv(), async { scene.receive("a") });
    assert_eq!(first, Some("a".into()), "a waiting handler is woken");
    scene.receive("b");
    scene.receive(vec![1]);
    assert_eq!(connection.recv().await, Some("b".into()));
    scene.close(Vec::new());
    scene.receive("late");
    assert_eq!(connection.recv().await, Some(vec![1].into()));
    assert_eq!(connection.recv().await, None);
    assert_eq!(connection.recv().await, None);
}

#[tokio::test]
async fn a_handler_is_notified_of_a_reassignment_after_all_messages() {
    let (scene, mut connection) = Scene::open(movable).await;
    scene.receive("a");
    assert!(!connection.is_leaving());
    scene.reassign();
    assert!(connection.is_leaving());
    connection.leaving().cancelled().await;
    assert_eq!(connection.recv().await, Some("a".into()));
    assert_eq!(connection.recv().await, None);
    assert!(connection.is_leaving() && scene.sent().is_empty(), "the handler has not returned");
    scene.returns.notify_one();
    connection.cancellation().cancelled().await;
    let [ServiceMessage::CloseConnection(close)] = &scene.sent()[..] else { panic!("it is handed over") };
    assert_eq!(close.reason().next_home, Some(""));
    let (idle, mut connection) = Scene::open(movable).await;
    let (ended, ()) = tokio::join!(connection.recv(), async { idle.reassign() });
    assert_eq!(ended, None, "a waiting handler is woken");
}

#[tokio::test]
async fn a_handler_that_has_not_read_all_messages_hands_nothing_over() {
    let (scene, mut connection) = Scene::open(movable).await;
    scene.receive("a");
    scene.reassign();
    assert_eq!(connection.recv().await, Some("a".into()));
    scene.returns.notify_one();
    connection.cancellation().cancelled().await;
    let [ServiceMessage::CloseConnection(close)] = &scene.sent()[..] else { panic!("it is closed") };
    assert_eq!(close.reason().next_home, None);
}

#[tokio::test]
async fn a_closed_connection_drops_its_messages_and_wakes_its_handler() {
    let (scene, mut connection) = Scene::open(|endpoint| endpoint).await;
    let sender = connection.sender();
    let (ended, ()) = tokio::join!(connection.recv(), async { sender.close() });
    assert_eq!(ended, None);
    assert_eq!(sender.send("late").await, Err(RawSendError::Closed));
    assert_eq!(scene.sent().len(), 1, "one close");
    let (scene, mut connection) = Scene::open(|endpoint| endpoint).await;
    scene.receive("unread");
    connection.sender().close();
    assert_eq!(connection.recv().await, None);
}

#[tokio::test]
async fn a_thread_without_a_runtime_closes_a_connection() {
    let (_scene, mut connection) = Scene::open(narrow).await;
    let sender = connection.sender();
    std::thread::spawn(move || sender.close()).join().unwrap();
    assert!(connection.recv().await.is_none());
}

#[tokio::test]
async fn too_much_pauses_the_client_even_if_all_of_it_is_empty() {
    let (scene, mut connection) = Scene::open(narrow).await;
    for _ in 0..4 {
        scene.receive("");
        assert_eq!(scene.operations(), []);
    }
    scene.receive("");
    assert_eq!(scene.operations(), [FlowOperation::Pause]);
    for _ in 0..3 {
        assert_eq!(scene.operations(), []);
        assert!(connection.recv().await.is_some());
    }
    assert_eq!(scene.operations(), [FlowOperation::Resume]);
}

#[tokio::test]
async fn a_paused_client_resumes_when_its_handler_stops_reading() {
    let (scene, connection) = Scene::open(narrow).await;
    scene.receive("x".repeat(1000));
    assert_eq!(scene.operations(), [FlowOperation::Pause]);
    drop(connection);
    assert_eq!(scene.operations(), [FlowOperation::Resume]);
    scene.receive("x".repeat(1000));
    assert_eq!(scene.operations(), []);
}

#[tokio::test]
async fn an_ended_connection_leaves_nothing_behind() {
    let (scene, connection) = Scene::open(|endpoint| endpoint).await;
    scene.receive("x".repeat(100_000));
    let ended = scene.hub.core.connections.get("c1").unwrap();
    scene.close(Vec::new());
    drop(connection);
    scene.returns.notify_one();
    while Arc::strong_count(&ended) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ended.inbox().left_over(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_raw_message_waits_for_its_client_and_a_reassignment_does_not() {
    let (scene, mut connection) = Scene::open(movable).await;
    let sender = connection.sender();
    let sent = (0..100).take_while(|_| sender.send(vec![0; 50_000]).now_or_never().is_some()).count();
    let frames = scene.sent();
    assert_eq!((sent, frames.len()), (5, 7), "five messages, and a mark behind each second");
    let refused = sender.send(vec![0; 1_000_001]).await;
    assert_eq!(refused, Err(RawSendError::TooLarge { length: 1_000_001, limit: 1_000_000 }));
    let mut sending = Box::pin(sender.send(vec![0; 50_000]));
    assert!((&mut sending).now_or_never().is_none());
    let [.., ServiceMessage::DownMark(mark), _] = &frames[..] else { panic!("{frames:?}") };
    scene.hub.handle(LinkId(1), &scene.node, ServiceMessage::DownDone(mark.clone()));
    sending.await.unwrap();
    assert!(matches!(&scene.sent()[..], [ServiceMessage::ConnectionData(_), ServiceMessage::DownMark(_)]));
    let mut sending = Box::pin(sender.send(vec![0; 900_000]));
    assert!((&mut sending).now_or_never().is_none());
    scene.reassign();
    assert_eq!(connection.recv().await, None);
    scene.returns.notify_one();
    assert_eq!(sending.await, Err(RawSendError::Closed));
    assert!(matches!(&scene.sent()[..], [ServiceMessage::CloseConnection(_)]));
}
