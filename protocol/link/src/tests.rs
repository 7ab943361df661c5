//! Both ends of a link against each other, in memory and with paused time.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role as SocketRole, WebSocketConfig};
use trunkline_protocol::limits::{
    ACKNOWLEDGE_DELAY_MS, LINK_FRAME_MAX_BYTES, LINK_HANDSHAKE_TIMEOUT_MS, LINK_TIMEOUT_MS,
};
use trunkline_protocol::service::{
    Attachment, Class, ConnectionData, FrameHead, Incoming, LinkHandshakeRequest, LinkHandshakeResponse, Ping, Role,
    ServiceMessage, Session, SessionEndReason, SessionEvent, SessionId, SessionSettings, encode_connection_data,
};

use super::reader::{BATCH_MAX_BYTES, PING_BYTES};
use super::*;

type TestSocket = LinkSocket<WebSocketStream<DuplexStream>>;

/// End after its socket has ended, with the reason.
type EndedEnd = (TestEnd, LinkEnd);
type RunningEnd = JoinHandle<EndedEnd>;

const WINDOW_MS: u64 = 10_000;
const RING_BYTES: usize = 64 * 1024;

/// One end of a session, across all its sockets.
struct TestEnd {
    role: Role,
    outbox: Arc<LinkOutbox>,
    clock: LinkClock,
    incoming: Incoming,
    /// Frames after which its sink ends a batch.
    batch_frames: usize,
    /// Time that its sink takes for a batch.
    batch_time: Duration,
    /// Received texts by batch.
    batches: Vec<Vec<String>>,
}

impl TestEnd {
    fn new(role: Role, ring_bytes: usize) -> Self {
        let session = Session::new(SessionId::FIRST, role, SessionSettings::new(ring_bytes, WINDOW_MS), 0);
        let policy = match role {
            Role::Proxy => OutboxPolicy::pausing(usize::MAX),
            Role::AppServer => OutboxPolicy::waiting(),
        };
        let outbox = Arc::new(LinkOutbox::new(policy, Some(session)));
        let (clock, incoming) = (LinkClock::start(), Incoming::default());
        let (batch_frames, batch_time) = (usize::MAX, Duration::ZERO);
        Self { role, outbox, clock, incoming, batch_frames, batch_time, batches: Vec::new() }
    }

    fn send(&self, text: &str) {
        self.outbox.push(Class::Ordinary, |out| encode_connection_data("c", text.as_bytes(), 0, out)).unwrap();
    }

    fn texts(&self) -> Vec<String> {
        self.batches.concat()
    }

    fn batch_sizes(&self) -> Vec<usize> {
        self.batches.iter().map(Vec::len).collect()
    }

    /// Runs one socket until it ends, like a real end.
    async fn carry(mut self, attachment: Attachment, socket: TestSocket, stop: SocketStop) -> (Self, LinkEnd) {
        let LinkSocket { reader, mut writer } = socket;
        let outbox = Arc::clone(&self.outbox);
        let (outbox, clock) = (&*outbox, self.clock);
        let (batch_frames, batch_time) = (self.batch_frames, self.batch_time);
        let mut sink = BatchRecorder { outbox, role: self.role, batch_frames, batch_time, batches: vec![Vec::new()] };
        let end = {
            let mut reads = LinkReadLoop { outbox, clock, incoming: &mut self.incoming, reader };
            let mut reading = pin!(reads.run(&mut sink, &stop));
            let writes = LinkWriteLoop { outbox, clock, attachment, piece_timeout: None };
            let mut writing = pin!(writes.run(&mut writer, &stop, |_| {}));
            let end = tokio::select! {
                biased;
                end = &mut reading => end,
                written = &mut writing => written.err().unwrap_or_else(|| stop.link_end()),
                verdict = wait_for_verdict(outbox, clock, |_| {}) => match verdict {
                    Some(SessionEvent::End(cause)) => LinkEnd::Over(cause),
                    _ => LinkEnd::Silent,
                },
            };
            if stop.reason() == Some(StopReason::Shutdown) {
                drop(writing.await);
            }
            end
        };
        self.batches.extend(sink.batches.into_iter().filter(|batch| !batch.is_empty()));
        outbox.detach(attachment, clock.now_ms());
        if let Some(close) = end.close_frame(self.role) {
            writer.close_socket(close).await;
        }
        (self, end)
    }

    fn spawn(self, attachment: Attachment, socket: TestSocket, stop: &SocketStop) -> JoinHandle<(Self, LinkEnd)> {
        tokio::spawn(self.carry(attachment, socket, stop.clone()))
    }
}

struct BatchRecorder<'a> {
    outbox: &'a LinkOutbox,
    role: Role,
    batch_frames: usize,
    batch_time: Duration,
    batches: Vec<Vec<String>>,
}

impl FrameSink for BatchRecorder<'_> {
    fn handle_ping(&mut self, ping: &Ping) {
        if self.role == Role::AppServer && !ping.pairs.is_empty() {
            self.outbox.echo(ping);
        }
    }

    fn handle_frame(&mut self, _body: &Bytes, message: Option<ServiceMessage>) -> Result<(), String> {
        match message {
            Some(ServiceMessage::ConnectionData(ConnectionData { payload, .. })) => {
                self.batches.last_mut().unwrap().push(String::from_utf8_lossy(&payload).into_owned());
                Ok(())
            }
            _ => Err("is not allowed".into()),
        }
    }

    fn handle_skipped(&mut self, head: &FrameHead, problem: &str) {
        self.batches.last_mut().unwrap().push(format!("{} {:?} {problem}", head.name(), head.connections));
    }

    fn is_batch_full(&mut self, frames: usize) -> bool {
        frames >= self.batch_frames
    }

    async fn end_batch(&mut self, _bytes: usize) {
        if self.batches.last().is_some_and(|batch| !batch.is_empty()) {
            // sleep: time is paused, and a test is about its passing.
            sleep(self.batch_time).await;
        }
        self.batches.push(Vec::new());
    }
}

/// Both halves of a WebSocket in memory: the proxy's, then the app server's.
async fn sockets() -> (TestSocket, TestSocket) {
    let (client, server) = duplex(1024 * 1024);
    // Real ends accept messages larger than a frame.
    let config = Some(WebSocketConfig::default().max_frame_size(None).max_message_size(None));
    let client = WebSocketStream::from_raw_socket(client, SocketRole::Client, config).await;
    let server = WebSocketStream::from_raw_socket(server, SocketRole::Server, config).await;
    (LinkSocket::network(client), LinkSocket::network(server))
}

fn new_ends() -> (TestEnd, TestEnd) {
    (TestEnd::new(Role::Proxy, RING_BYTES), TestEnd::new(Role::AppServer, RING_BYTES))
}

/// Exchanges offer and answer in headers, then the handshake. Returns each end's attachment and socket.
async fn connect(proxy: &mut TestEnd, app: &mut TestEnd) -> [(Attachment, TestSocket); 2] {
    let (mut offered, mut answered) = (HeaderMap::new(), HeaderMap::new());
    let offer = proxy.outbox.offer().unwrap();
    write_offer(&offer, &mut offered);
    let read = read_offer(&offered).unwrap().unwrap();
    assert_eq!(read, offer);
    let (of_app, answer) = app.outbox.attach_offer(&read, app.clock.now_ms()).unwrap().unwrap();
    app.incoming.attach(answer.received);
    write_answer(&answer, &mut answered);
    let answer = read_answer(&answered, &offer).unwrap();
    let (mut near, mut far) = sockets().await;
    let (answering, asking) = tokio::join!(answer_handshake(&mut near), request_handshake(&mut far));
    assert!(answering.is_ok() && asking.is_ok());
    let attached = proxy.outbox.attach_answer(&offer, &answer, proxy.clock.now_ms());
    let (of_proxy, _) = attached.unwrap().unwrap();
    proxy.incoming.attach(offer.received.unwrap_or_default());
    [(of_proxy, near), (of_app, far)]
}

/// Runs both ends on a new socket. A [`SocketStop`] stops each.
async fn carry(mut proxy: TestEnd, mut app: TestEnd) -> Running {
    let [(of_proxy, near), (of_app, far)] = connect(&mut proxy, &mut app).await;
    let (proxy_stop, app_stop) = (SocketStop::default(), SocketStop::default());
    let outboxes = [Arc::clone(&proxy.outbox), Arc::clone(&app.outbox)];
    let tasks = (proxy.spawn(of_proxy, near, &proxy_stop), app.spawn(of_app, far, &app_stop));
    Running { stops: [proxy_stop, app_stop], outboxes, tasks }
}

struct Running {
    stops: [SocketStop; 2],
    outboxes: [Arc<LinkOutbox>; 2],
    tasks: (RunningEnd, RunningEnd),
}

impl Running {
    /// Stops the socket at the end with this index, and waits for both ends.
    async fn stop(self, index: usize, reason: StopReason) -> (EndedEnd, EndedEnd) {
        self.stops[index].stop(reason, &self.outboxes[index]);
        self.ended().await
    }

    async fn ended(self) -> (EndedEnd, EndedEnd) {
        (self.tasks.0.await.unwrap(), self.tasks.1.await.unwrap())
    }
}

/// Everything in flight arrives within this time.
async fn settle() {
    // sleep: time is paused, and the test is about its passing.
    sleep(Duration::from_millis(1)).await;
}

/// Timers are coarser than a millisecond.
fn assert_lasted(since: Instant, expected: Duration) {
    let (lasted, slack) = (since.elapsed(), Duration::from_millis(10));
    assert!((expected - slack..expected + slack).contains(&lasted), "{lasted:?} instead of {expected:?}");
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn frames_go_both_ways_in_order() {
    let (proxy, app) = new_ends();
    numbered(3).iter().for_each(|text| proxy.send(text));
    app.send("down");
    let running = carry(proxy, app).await;
    settle().await;
    let ((proxy, _), (app, end)) = running.stop(0, StopReason::Failed).await;
    assert_eq!((proxy.texts(), app.texts()), (vec!["down".to_owned()], numbered(3)));
    assert!(end.is_resumable(), "a socket that is dropped is lost, its session is not: {end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_refused_with_a_text_for_people() {
    let (mut near, mut far) = sockets().await;
    let request = LinkHandshakeRequest { version: 2, ..LinkHandshakeRequest::default() };
    far.writer.send_messages(&[ServiceMessage::HandshakeRequest(request)]).await.unwrap();
    let refused = answer_handshake(&mut near).await.unwrap_err();
    assert_eq!(refused.reason(Role::Proxy), "service protocol version 2 is not supported, 1 is");
    let answer = far.reader.next_message().await.unwrap();
    assert!(matches!(answer, Some(ServiceMessage::HandshakeResponse(LinkHandshakeResponse { error: Some(_), .. }))));

    let refusal = LinkHandshakeResponse { error: Some("not you".into()), connection_id: None };
    near.writer.send_messages(&[ServiceMessage::HandshakeResponse(refusal)]).await.unwrap();
    let refused = request_handshake(&mut far).await.unwrap_err();
    assert_eq!(refused.reason(Role::AppServer), "the proxy refused the handshake: not you");
    assert!(!refused.is_resumable());
}

#[tokio::test(start_paused = true)]
async fn a_missing_handshake_times_out_and_another_frame_is_refused() {
    let (mut near, mut far) = sockets().await;
    let started = Instant::now();
    assert!(matches!(answer_handshake(&mut near).await, Err(LinkEnd::HandshakeTimeout)));
    assert_lasted(started, Duration::from_millis(LINK_HANDSHAKE_TIMEOUT_MS));
    near.writer.send_messages(&[ServiceMessage::Ping(Ping::default())]).await.unwrap();
    assert!(matches!(request_handshake(&mut far).await, Err(LinkEnd::HandshakeMissing(Some(_)))));
}

/// Lets the app server read these texts of the proxy when all frames are in the socket. Returns the app server and the
/// number of WebSocket messages.
async fn read_together((mut proxy, mut app): (TestEnd, TestEnd), texts: &[String]) -> (TestEnd, usize) {
    let [(of_proxy, mut near), (of_app, far)] = connect(&mut proxy, &mut app).await;
    texts.iter().for_each(|text| proxy.send(text));
    let mut pieces = 0;
    while let Outgoing::Piece(piece) = proxy.outbox.poll(of_proxy, 0) {
        near.writer.send(piece.bytes).await.unwrap();
        pieces += 1;
    }
    let stop = SocketStop::default();
    let running = app.spawn(of_app, far, &stop);
    settle().await;
    stop.stop(StopReason::Failed, &proxy.outbox);
    (running.await.unwrap().0, pieces)
}

#[tokio::test(start_paused = true)]
async fn available_frames_are_one_batch_up_to_its_limit() {
    let ends = (TestEnd::new(Role::Proxy, 8 << 20), TestEnd::new(Role::AppServer, RING_BYTES));
    let texts = [numbered(20), vec!["x".repeat(100 * 1024); 5]].concat();
    let (app, pieces) = read_together(ends, &texts).await;
    assert!(pieces > 2, "several messages make a batch");
    assert_eq!(app.batch_sizes(), [23, 2], "a batch ends with the frame that takes it to 256 KiB");
    assert!(app.texts() == texts, "complete and in order");
}

#[tokio::test(start_paused = true)]
async fn a_sink_may_end_a_batch_early_and_gets_the_other_frames_in_the_next_ones() {
    let (proxy, mut app) = new_ends();
    app.batch_frames = 8;
    let (app, _) = read_together((proxy, app), &numbered(20)).await;
    assert_eq!((app.batch_sizes(), app.texts()), (vec![8, 8, 4], numbered(20)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_pings_ends_and_other_frames_come_in_the_next_one() {
    let (mut proxy, mut app) = new_ends();
    let [(_, mut near), (of_app, far)] = connect(&mut proxy, &mut app).await;
    let mut piece = BytesMut::new();
    encode_connection_data("c", b"first", 0, &mut piece);
    (0..BATCH_MAX_BYTES / PING_BYTES).for_each(|_| ServiceMessage::Ping(Ping::default()).encode(&mut piece));
    encode_connection_data("c", b"last", 0, &mut piece);
    near.writer.send(piece.freeze()).await.unwrap();
    let stop = SocketStop::default();
    let running = app.spawn(of_app, far, &stop);
    settle().await;
    stop.stop(StopReason::Failed, &proxy.outbox);
    assert_eq!(running.await.unwrap().0.batches, [["first"], ["last"]]);
}

#[tokio::test(start_paused = true)]
async fn a_session_continues_after_a_cut_without_loss_or_duplicates() {
    let (proxy, app) = new_ends();
    numbered(2).iter().for_each(|text| proxy.send(text));
    let running = carry(proxy, app).await;
    settle().await;
    // Nothing was acknowledged yet: the next upgrade reports the received frames.
    let ((proxy, _), (app, _)) = running.stop(1, StopReason::Failed).await;
    assert!(!proxy.outbox.is_open() && !app.outbox.is_open());
    proxy.send("2");
    app.send("down");
    let running = carry(proxy, app).await;
    settle().await;
    let ((proxy, _), (app, _)) = running.stop(0, StopReason::Failed).await;
    assert_eq!((proxy.texts(), app.texts()), (vec!["down".to_owned()], numbered(3)));
}

#[tokio::test(start_paused = true)]
async fn frames_lost_with_a_socket_are_replayed() {
    let (mut proxy, mut app) = new_ends();
    proxy.send("0");
    let [(of_proxy, mut near), (of_app, far)] = connect(&mut proxy, &mut app).await;
    let Outgoing::Piece(piece) = proxy.outbox.poll(of_proxy, 0) else { panic!("a frame waits") };
    near.writer.send(piece.bytes).await.unwrap();
    // Written but never read.
    drop((near, far));
    proxy.outbox.detach(of_proxy, 0);
    app.outbox.detach(of_app, 0);
    let running = carry(proxy, app).await;
    settle().await;
    let (_, (app, _)) = running.stop(0, StopReason::Failed).await;
    assert_eq!(app.texts(), numbered(1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_loses_its_socket_and_after_the_window_its_session() {
    let (mut proxy, mut app) = new_ends();
    let [(of_proxy, near), (_, far)] = connect(&mut proxy, &mut app).await;
    let started = Instant::now();
    let (proxy, end) = proxy.carry(of_proxy, near, SocketStop::default()).await;
    assert!(matches!(end, LinkEnd::Silent));
    assert_lasted(started, Duration::from_millis(LINK_TIMEOUT_MS.min(WINDOW_MS)));
    let lost = Instant::now();
    assert_eq!(window_passed(&proxy.outbox, proxy.clock).await, SessionEndReason::WindowPassed);
    assert_lasted(lost, Duration::from_millis(WINDOW_MS));
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_not_silent_while_its_frames_are_applied() {
    let (proxy, mut app) = new_ends();
    app.batch_time = Duration::from_millis(3 * WINDOW_MS);
    proxy.send("long");
    let running = carry(proxy, app).await;
    // sleep: time is paused, and the test is about its passing.
    sleep(Duration::from_millis(4 * WINDOW_MS)).await;
    assert!(running.outboxes.iter().all(|outbox| outbox.is_open()));
    let (_, (app, _)) = running.stop(0, StopReason::Failed).await;
    assert_eq!(app.texts(), ["long"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_lives_by_its_pings() {
    let (proxy, app) = new_ends();
    let running = carry(proxy, app).await;
    // sleep: time is paused, and the test is about its passing.
    sleep(Duration::from_secs(600)).await;
    assert!(running.outboxes.iter().all(|outbox| outbox.is_open()));
}

#[tokio::test(start_paused = true)]
async fn only_the_end_of_a_session_sends_a_close_frame() {
    let (proxy, app) = new_ends();
    let running = carry(proxy, app).await;
    let ((proxy, end), (app, _)) = running.stop(1, StopReason::Replaced).await;
    assert!(matches!(end, LinkEnd::Closed), "{end:?}");
    let running = carry(proxy, app).await;
    let ((_, end), _) = running.stop(1, StopReason::Over(SessionEndReason::Forgotten)).await;
    assert!(matches!(&end, LinkEnd::Goodbye(words) if words.contains("session is over")), "{end:?}");
    assert!(!end.is_resumable());
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_queued_leave_before_a_shutdown() {
    let (proxy, app) = new_ends();
    let running = carry(proxy, app).await;
    settle().await;
    running.outboxes[1].control(&ConnectionDataFrame("last").bytes()).unwrap();
    let ((proxy, end), _) = running.stop(1, StopReason::Shutdown).await;
    assert_eq!(proxy.texts(), ["last"]);
    assert!(matches!(end, LinkEnd::Goodbye(_)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_cannot_be_used_is_skipped_and_counted() {
    let (proxy, app) = (TestEnd::new(Role::Proxy, 2 * LINK_FRAME_MAX_BYTES), TestEnd::new(Role::AppServer, RING_BYTES));
    proxy.send("0");
    proxy.outbox.push(Class::Ordinary, |out| ServiceMessage::Ack(Default::default()).encode(out)).unwrap();
    // ConnectionData without a payload, and an oversized one.
    proxy.outbox.push(Class::Ordinary, |out| out.extend_from_slice(b"\x05\x92\x06\xa2c1")).unwrap();
    let payload = Bytes::from(vec![0; LINK_FRAME_MAX_BYTES]);
    proxy.outbox.push(Class::Ordinary, |out| encode_connection_data("c2", &payload, 0, out)).unwrap();
    proxy.send("1");
    let running = carry(proxy, app).await;
    settle().await;
    let ((proxy, _), (app, _)) = running.stop(1, StopReason::Failed).await;
    proxy.send("2");
    // Both ends agree on the numbers, so nothing is repeated.
    let running = carry(proxy, app).await;
    settle().await;
    let (_, (app, _)) = running.stop(0, StopReason::Failed).await;
    let length = payload.len() + 11;
    assert_eq!(
        app.texts(),
        [
            "0",
            "Ack [] is not allowed",
            "ConnectionData [\"c1\"] service message ConnectionData (6): payload: is missing",
            &format!("ConnectionData [\"c2\"] a frame of {length} bytes is over the limit of {LINK_FRAME_MAX_BYTES}"),
            "1",
            "2",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_ring_pauses_its_senders_until_a_late_acknowledgement() {
    let (proxy, app) = (TestEnd::new(Role::Proxy, 100), TestEnd::new(Role::AppServer, 100));
    let filling = ConnectionDataFrame(&"x".repeat(120)).bytes();
    app.outbox.try_send(&filling).unwrap();
    proxy.send(&"y".repeat(120));
    assert!(proxy.outbox.is_full() && app.outbox.is_full());
    let running = carry(proxy, app).await;
    let started = Instant::now();
    let [of_proxy, of_app] = &running.outboxes;
    tokio::join!(of_proxy.room(), async { of_app.send(&filling).await.unwrap() });
    // A large part of the ring is acknowledged immediately; a few bytes only after the delay.
    assert!(started.elapsed() <= Duration::from_millis(ACKNOWLEDGE_DELAY_MS));
    let ((proxy, _), _) = running.stop(0, StopReason::Shutdown).await;
    assert!(!proxy.texts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_small_frame_is_acknowledged_after_the_delay() {
    let (proxy, app) = new_ends();
    proxy.send("0");
    let running = carry(proxy, app).await;
    // sleep: time is paused, and the test is about its passing.
    sleep(Duration::from_millis(ACKNOWLEDGE_DELAY_MS / 2)).await;
    assert_ne!(running.outboxes[0].ring_bytes(), 0, "read, and not acknowledged");
    // sleep: time is paused, and the test is about its passing.
    sleep(Duration::from_millis(ACKNOWLEDGE_DELAY_MS)).await;
    assert_eq!(running.outboxes[0].ring_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_piece_counts_once_it_is_written() {
    let (mut near, far) = LinkSocket::<WebSocketStream<DuplexStream>>::memory();
    let (mut proxy, mut app) = new_ends();
    let [(of_proxy, _near), _far] = connect(&mut proxy, &mut app).await;
    while let Ok(sent) = timeout(Duration::ZERO, near.writer.send(Bytes::from_static(b"x"))).await {
        sent.unwrap();
    }
    let written = Cell::new(0);
    proxy.send("0");
    let (outbox, clock) = (&proxy.outbox, proxy.clock);
    let writes = LinkWriteLoop { outbox, clock, attachment: of_proxy, piece_timeout: None };
    let stop = SocketStop::default();
    let mut writing = pin!(writes.run(&mut near.writer, &stop, |piece| written.set(written.get() + piece.bytes)));
    assert!(timeout(Duration::ZERO, &mut writing).await.is_err());
    drop(far.reader);
    assert!(matches!(writing.await, Err(LinkEnd::Closed)));
    assert_eq!(written.get(), 0, "the peer has not read it");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_hangs_is_given_up() {
    let (mut near, far) = LinkSocket::<WebSocketStream<DuplexStream>>::memory();
    let (mut proxy, mut app) = new_ends();
    let [(of_proxy, _near), _far] = connect(&mut proxy, &mut app).await;
    // Memory links hold a limited number of chunks.
    while let Ok(sent) = timeout(Duration::ZERO, near.writer.send(Bytes::from_static(b"x"))).await {
        sent.unwrap();
    }
    proxy.send("0");
    let piece_timeout = Some(Duration::from_secs(1));
    let writes = LinkWriteLoop { outbox: &proxy.outbox, clock: proxy.clock, attachment: of_proxy, piece_timeout };
    assert!(matches!(writes.run(&mut near.writer, &SocketStop::default(), |_| {}).await, Err(LinkEnd::Stuck)));
    drop(far);
}

/// Complete frame with this text.
struct ConnectionDataFrame<'a>(&'a str);

impl ConnectionDataFrame<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        encode_connection_data("c", self.0.as_bytes(), 0, &mut out);
        out.to_vec()
    }
}
