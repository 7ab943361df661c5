//! Broker: nodes find and dial each other through the servers of the store, so they need no way to each other.
//!
//! ```text
//!  hello ─► all nodes: boot id                      at the start, every few seconds, and as an answer to a new node
//!  dial ─► the node: port, subject, key part ─► answer: subject, key part ─► two subjects, for this socket only
//!  socket = pipe ◄─► pump ◄─► messages (`broker_socket`)
//! ```
//!
//! A socket carries the same as a network does: a channel of the fleet, and HTTP in it. Hellos, dials and answers are
//! sealed by the store's data key, the messages of a socket by its own keys. So other clients of the engine can only
//! make it fail. The connection is not the store's: nodes stay together while values can't be written.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use trunkline_protocol::id::{random_bytes, random_id};

use super::Store;
use super::broker_socket::{
    KeyPart, MessageOpener, MessageSealer, OVERHEAD_BYTES, ReadLedger, ReceivedMessage, SendWindow, SocketEnd,
    SocketMessage, seals,
};
use super::seal::DataKey;
use super::store_engine::{Connected, EngineMessages, in_time};
use crate::engine::shard::Shared;
use crate::ground::clock::unix_ms;
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::net::address::Address;
use crate::ground::net::node_port::{DialByBroker, NodePort};

/// Interval of hellos, and time for answers to the first one.
const HELLO_INTERVAL: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// Time for this node's own hello to come back, and for the first key of the store.
const ECHO_TIMEOUT: Duration = Duration::from_secs(3);
const KEY_TIMEOUT: Duration = Duration::from_secs(5);

const RETRY_INTERVAL: Duration = Duration::from_millis(300);

/// Time for the pumps of a node that leaves.
const LEAVE_WAIT: Duration = Duration::from_millis(100);

/// Time for which a node with another clock is reported.
const CLOCK_TIME: Duration = Duration::from_secs(60);

/// Subject of the broker's condition.
const SUBJECT: &str = "fleet";

/// Minimum interval between two answers to hellos of new nodes.
const HELLO_PAUSE: Duration = Duration::from_millis(100);

/// Tolerated age of hellos and dials. The clocks of nodes may differ by as much.
const AGE_MAX_MS: u64 = 300_000;

/// Time for a dialled node to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Sockets that wait to be accepted at a port, and accepted sockets of a node.
const BACKLOG_MAX: usize = 256;
const ACCEPTED_MAX: usize = 16_384;

/// Accepted dials whose copies are recognised. With more, a copy costs a socket for the time of its first message.
const DIALS_SEEN_MAX: usize = 65_536;

/// Time for the first message of an accepted socket.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);

/// Buffer of a socket in each direction, and maximum size of a data message, in bytes.
const PIPE_BYTES: usize = 64 * 1024;
const DATA_MAX_BYTES: usize = 32 * 1024;

/// Interval of signs of life of a socket, and time without one after which it ends.
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Connection of a node to the broker. Sockets end with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NodeEnd {
    boot: String,
    connection: String,
    sent_ms: u64,
}

/// Message of a node to all nodes.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    from: NodeEnd,
    /// Whether the node is new and asks the others for theirs.
    asks: bool,
}

/// Request for a socket.
#[derive(Debug, Serialize, Deserialize)]
struct Dial {
    from: NodeEnd,
    port: NodePort,
    /// Name of the subject for the answer, and for what the dialled node sends.
    subject: String,
    part: KeyPart,
}

#[derive(Debug, Serialize, Deserialize)]
struct DialAnswer {
    from: NodeEnd,
    /// Name of the subject for what the dialling node sends.
    subject: String,
    part: KeyPart,
}

/// Listeners of the ports of this node. Sockets are distributed over the listeners of a port.
#[derive(Debug, Default)]
struct Listeners {
    admin: Vec<mpsc::Sender<DuplexStream>>,
    clients: Vec<mpsc::Sender<DuplexStream>>,
}

/// Open connection to the broker, with the key of the fleet.
#[derive(Debug)]
struct BrokerLink {
    messages: Box<dyn EngineMessages>,
    key: Arc<DataKey>,
    boot: String,
    connection: String,
    ended: CancellationToken,
}

impl BrokerLink {
    fn own_end(&self) -> NodeEnd {
        NodeEnd { boot: self.boot.clone(), connection: self.connection.clone(), sent_ms: unix_ms() }
    }
}

#[derive(Debug)]
pub(crate) struct Broker {
    store: Arc<Store>,
    link: watch::Sender<Option<Arc<BrokerLink>>>,
    /// Last key of the store.
    key: ArcSwapOption<DataKey>,
    /// Newest connection of each other node.
    ends: watch::Sender<HashMap<String, NodeEnd>>,
    /// Subjects of accepted dials, each with the time of the dial.
    seen: Mutex<HashMap<String, u64>>,
    accepted: Arc<Semaphore>,
    listeners: Mutex<Listeners>,
    next: AtomicUsize,
    /// Set once the nodes that were there had time to answer the first hello.
    is_introduced: watch::Sender<bool>,
}

impl Broker {
    pub(crate) fn new(store: &Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            link: watch::Sender::new(None),
            key: ArcSwapOption::empty(),
            ends: watch::Sender::default(),
            seen: Mutex::default(),
            accepted: Arc::new(Semaphore::new(ACCEPTED_MAX)),
            listeners: Mutex::default(),
            next: AtomicUsize::new(0),
            is_introduced: watch::Sender::new(false),
        })
    }

    #[cfg(test)]
    pub(crate) fn counters(&self) -> &crate::ground::metrics::StoreCounters {
        &self.store.counters
    }

    /// Listens at a port.
    pub(crate) fn listen(&self, port: NodePort) -> mpsc::Receiver<DuplexStream> {
        let (sender, receiver) = mpsc::channel(BACKLOG_MAX);
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        match port {
            NodePort::Admin => listeners.admin.push(sender),
            NodePort::Clients => listeners.clients.push(sender),
        }
        receiver
    }

    /// Waits until the nodes that are there had time to answer.
    pub(crate) async fn introduced(&self) {
        drop(self.is_introduced.subscribe().wait_for(|is_introduced| *is_introduced).await);
    }

    /// Waits until the last messages to other nodes have left.
    pub(crate) async fn flush(&self) {
        // Of sockets that end now, the pumps send their ends.
        sleep(LEAVE_WAIT).await;
        let link = self.link.borrow().clone();
        if let Some(link) = link {
            drop(in_time(link.messages.flush()).await);
        }
    }

    /// Announces this node, and accepts sockets, as long as the node runs. `found` gets the address of each other node,
    /// also of known ones.
    pub(crate) async fn keep(&self, shared: &Shared, found: impl Fn(Address)) {
        let mut last = String::new();
        loop {
            let Err(problem) = self.use_connection(shared, &found).await;
            if self.link.send_replace(None).is_some() {
                last.clear();
            }
            if problem != last {
                warn!(problem, "other nodes can't be reached through NATS: trying again");
            }
            let finding = Finding::new(ConditionKind::BrokerUnreachable, SUBJECT, &*problem);
            shared.reports.conditions.report(finding, None);
            last = problem;
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn use_connection(&self, shared: &Shared, found: &impl Fn(Address)) -> Result<Infallible, String> {
        let key = self.fleet_key().await?;
        let Connected { messages, server } = self.store.engine.connect().await?;
        let (boot, connection) = (shared.boot.clone(), random_id());
        let link = Arc::new(BrokerLink { messages, key, boot, connection, ended: CancellationToken::new() });
        let Err(problem) = self.serve(&link, shared, found).await;
        link.ended.cancel();
        Err(format!("{server}: {}", link.messages.explain(&problem)))
    }

    /// Key of the store, or the last one while the store is away.
    async fn fleet_key(&self) -> Result<Arc<DataKey>, String> {
        if self.key.load().is_none() {
            drop(timeout(KEY_TIMEOUT, self.store.link.subscribe().wait_for(Result::is_ok)).await);
        }
        if let Some(key) = self.store_key() {
            self.key.store(Some(key));
        }
        self.key.load_full().ok_or_else(|| self.store.away().cause())
    }

    fn store_key(&self) -> Option<Arc<DataKey>> {
        self.store.link.borrow().as_ref().ok().map(|link| link.key.clone())
    }

    async fn serve(
        &self,
        link: &Arc<BrokerLink>,
        shared: &Shared,
        found: &impl Fn(Address),
    ) -> Result<Infallible, String> {
        let boot = &shared.boot;
        let (hellos, dials) = (self.subject("hello"), self.subject(&format!("to.{boot}")));
        let mut heard = self.subscribe(link, &hellos).await?;
        let mut dialled = self.subscribe(link, &dials).await?;
        let mut ticks = interval(HELLO_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut asks, mut is_usable, begun, mut next_hello) = (true, false, Instant::now(), None::<Instant>);
        loop {
            tokio::select! {
                message = heard.next() => {
                    let message = message.ok_or("the connection was lost")?;
                    let Some(hello) = self.open::<Hello>(link, &hellos, &message) else { continue };
                    if hello.from.boot == *boot {
                        if hello.from.connection == link.connection && !std::mem::replace(&mut is_usable, true) {
                            self.link.send_replace(Some(link.clone()));
                            shared.reports.conditions.clear(ConditionKind::BrokerUnreachable, SUBJECT);
                            info!("other nodes can be reached through NATS");
                        }
                    } else if self.note_end(&hello.from) {
                        if hello.asks {
                            next_hello.get_or_insert(Instant::now() + HELLO_PAUSE);
                        }
                        found(Address::of_node(&hello.from.boot, NodePort::Admin));
                    } else if !self.ends.borrow().contains_key(&hello.from.boot) {
                        // No copy of an old hello of a node that is there.
                        report_clock(shared, &hello.from);
                    }
                }
                message = dialled.next() => {
                    let message = message.ok_or("the connection was lost")?;
                    let Some(dial) = self.open::<Dial>(link, &dials, &message) else { continue };
                    if self.note_end(&dial.from) && self.is_first_dial(&dial) {
                        self.accept(link, dial).await?;
                    }
                }
                () = until(next_hello) => {
                    next_hello = None;
                    self.say_hello(link, false).await?;
                }
                _ = ticks.tick() => {
                    if self.store_key().is_some_and(|key| !key.is(&link.key)) {
                        return Err("the store has another data key now".into());
                    }
                    self.say_hello(link, std::mem::replace(&mut asks, false)).await?;
                }
                () = sleep_until(begun + ECHO_TIMEOUT), if !is_usable => {
                    return Err(format!("may this user publish and subscribe {}? Nothing comes back", self.subject(">")));
                }
                () = sleep_until(begun + ANSWER_WAIT), if is_usable && !*self.is_introduced.borrow() => {
                    self.is_introduced.send_replace(true);
                }
            }
        }
    }

    /// Notes the connection of another node. Returns `false` for a message that is too old.
    fn note_end(&self, end: &NodeEnd) -> bool {
        let now_ms = unix_ms();
        let is_fresh = now_ms.abs_diff(end.sent_ms) <= AGE_MAX_MS;
        self.ends.send_if_modified(|ends| {
            let is_newer = ends
                .get(&end.boot)
                .is_none_or(|known| known.connection != end.connection && known.sent_ms < end.sent_ms);
            if is_newer && is_fresh {
                ends.retain(|_, known| known.sent_ms + AGE_MAX_MS > now_ms);
                ends.insert(end.boot.clone(), end.clone());
            }
            is_newer && is_fresh
        });
        is_fresh
    }

    /// Whether a dial is no copy of an earlier one, which another client can publish again.
    fn is_first_dial(&self, dial: &Dial) -> bool {
        let (mut seen, now_ms) = (self.seen.lock().unwrap_or_else(PoisonError::into_inner), unix_ms());
        if seen.len() >= DIALS_SEEN_MAX {
            seen.retain(|_, sent_ms| now_ms.abs_diff(*sent_ms) <= AGE_MAX_MS);
        }
        if seen.len() >= DIALS_SEEN_MAX {
            seen.clear();
        }
        seen.insert(dial.subject.clone(), dial.from.sent_ms).is_none()
    }

    async fn say_hello(&self, link: &BrokerLink, asks: bool) -> Result<(), String> {
        let hello = Hello { from: link.own_end(), asks };
        self.publish(link, &self.subject("hello"), &hello).await
    }

    async fn accept(&self, link: &Arc<BrokerLink>, dial: Dial) -> Result<(), String> {
        let Some(listener) = self.listener(dial.port) else { return Ok(()) };
        // Without room the dialling node tries again.
        let (Ok(place), Ok(permit)) = (listener.try_reserve_owned(), self.accepted.clone().try_acquire_owned()) else {
            return Ok(());
        };
        let (from, subject) = (link.own_end(), format!("socket.{}", random_id()));
        let answer = DialAnswer { from, subject, part: random_bytes() };
        let incoming = self.subscribe(link, &self.subject(&answer.subject)).await?;
        let to = self.subject(&dial.subject);
        self.publish(link, &to, &answer).await?;
        let keys = (SocketEnd::Listener, [&dial.part, &answer.part]);
        let mut pump = Pump::new(self, link, (incoming, to), keys)?;
        pump.permit = Some(permit);
        place.send(pump.start(self.ends.subscribe(), dial.from));
        Ok(())
    }

    fn listener(&self, port: NodePort) -> Option<mpsc::Sender<DuplexStream>> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let of_port = if port == NodePort::Admin { &listeners.admin } else { &listeners.clients };
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        of_port.get(turn.checked_rem(of_port.len())?).cloned()
    }

    async fn dial_node(&self, boot: &str, port: NodePort) -> io::Result<DuplexStream> {
        let away = |problem: String| io::Error::new(io::ErrorKind::NotConnected, problem);
        let mut links = self.link.subscribe();
        let link = timeout(DIAL_TIMEOUT, links.wait_for(Option::is_some)).await;
        let link = link.ok().and_then(|link| link.ok()?.clone()).ok_or_else(|| away("NATS is away".into()))?;
        let (from, subject) = (link.own_end(), format!("socket.{}", random_id()));
        let dial = Dial { from, port, subject, part: random_bytes() };
        let subject = self.subject(&dial.subject);
        let mut incoming = self.subscribe(&link, &subject).await.map_err(away)?;
        self.publish(&link, &self.subject(&format!("to.{boot}")), &dial).await.map_err(away)?;
        let answered = async {
            loop {
                let message = incoming.next().await?;
                if let Some(answer) = self.open::<DialAnswer>(&link, &subject, &message) {
                    return Some(answer);
                }
            }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, link.messages.explain("the node does not answer"));
        let answer = timeout(DIAL_TIMEOUT, answered).await.map_err(late)?;
        let answer = answer.ok_or_else(|| away("the connection to NATS was lost".into()))?;
        let to = self.subject(&answer.subject);
        let pump = Pump::new(self, &link, (incoming, to), (SocketEnd::Dialler, [&dial.part, &answer.part]));
        self.note_end(&answer.from);
        Ok(pump.map_err(away)?.start(self.ends.subscribe(), answer.from))
    }

    fn subject(&self, name: &str) -> String {
        format!("{}_fleet.{name}", self.store.settings.prefix)
    }

    async fn subscribe(&self, link: &BrokerLink, subject: &str) -> Result<BoxStream<'static, Bytes>, String> {
        in_time(link.messages.subscribe(subject)).await
    }

    async fn publish(&self, link: &BrokerLink, subject: &str, message: &impl Serialize) -> Result<(), String> {
        let plain = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        let sealed = link.key.seal_bytes(subject, plain).map_err(|error| error.to_string())?;
        in_time(link.messages.publish(subject.to_owned(), sealed)).await
    }

    fn open<T: DeserializeOwned>(&self, link: &BrokerLink, subject: &str, message: &[u8]) -> Option<T> {
        let plain = link.key.open_bytes(subject, message);
        if plain.is_none() {
            self.store.counters.broker_ignored.increment();
        }
        serde_json::from_slice(&plain?).ok()
    }
}

impl DialByBroker for Broker {
    fn dial<'a>(&'a self, boot: &'a str, port: NodePort) -> BoxFuture<'a, io::Result<DuplexStream>> {
        Box::pin(self.dial_node(boot, port))
    }
}

/// Reports a node with another clock: its announcements are ignored, as they may be copies of old ones.
fn report_clock(shared: &Shared, end: &NodeEnd) {
    let minutes = unix_ms().abs_diff(end.sent_ms) / 60_000;
    let detail =
        format!("a node announces itself through NATS with a clock {minutes} minutes apart (start {})", end.boot);
    let finding = Finding::new(ConditionKind::NodeClockDiffers, &*end.boot, detail);
    shared.reports.conditions.report(finding, Some(CLOCK_TIME));
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Pump between a pipe and the messages of a socket.
struct Pump {
    store: Arc<Store>,
    link: Arc<BrokerLink>,
    incoming: BoxStream<'static, Bytes>,
    /// Subject of the messages to the peer.
    to: String,
    sealer: MessageSealer,
    opener: MessageOpener,
    window: SendWindow,
    ledger: ReadLedger,
    /// Received data that the pipe has not taken yet, at most a window.
    waiting: VecDeque<Bytes>,
    data_max: usize,
    has_ended: bool,
    has_peer_ended: bool,
    /// Permit of an accepted socket.
    permit: Option<OwnedSemaphorePermit>,
}

impl Pump {
    fn new(
        broker: &Broker,
        link: &Arc<BrokerLink>,
        (incoming, to): (BoxStream<'static, Bytes>, String),
        (own, parts): (SocketEnd, [&KeyPart; 2]),
    ) -> Result<Self, String> {
        let (sealer, opener) = seals(own, parts).map_err(|error| error.to_string())?;
        let message_max = link.messages.message_max();
        Ok(Self {
            store: broker.store.clone(),
            link: link.clone(),
            incoming,
            to,
            sealer,
            opener,
            window: SendWindow::default(),
            ledger: ReadLedger::default(),
            waiting: VecDeque::new(),
            data_max: message_max.saturating_sub(OVERHEAD_BYTES).clamp(1, DATA_MAX_BYTES),
            has_ended: false,
            has_peer_ended: false,
            permit: None,
        })
    }

    /// Starts the pump to another node's connection; returns the other end of its pipe.
    fn start(self, ends: watch::Receiver<HashMap<String, NodeEnd>>, peer: NodeEnd) -> DuplexStream {
        let (near, far) = duplex(PIPE_BYTES);
        tokio::spawn(async move {
            if let Err(problem) = self.run(near, ends, peer).await {
                debug!(problem, "socket through the broker ended");
            }
        });
        far
    }

    async fn run(
        mut self,
        pipe: DuplexStream,
        mut ends: watch::Receiver<HashMap<String, NodeEnd>>,
        peer: NodeEnd,
    ) -> Result<(), String> {
        let link = self.link.clone();
        let has_another = |ends: &HashMap<String, NodeEnd>| {
            let newest = ends.get(&peer.boot);
            newest.is_some_and(|end| end.connection != peer.connection && end.sent_ms > peer.sent_ms)
        };
        let ran = tokio::select! {
            ran = self.run_until_broken(pipe) => ran,
            () = link.ended.cancelled() => Err("the connection is broken".into()),
            _ = ends.wait_for(has_another) => Err("the other node has another connection".into()),
        };
        if ran.is_err() {
            // The peer would wait for more.
            drop(self.send(&SocketMessage::Abort).await);
        }
        ran
    }

    async fn run_until_broken(&mut self, pipe: DuplexStream) -> Result<(), String> {
        let (mut reader, mut writer) = split(pipe);
        let mut alive = interval_at(Instant::now() + ALIVE_INTERVAL, ALIVE_INTERVAL);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (begun, mut buffer) = (Instant::now(), BytesMut::new());
        let mut heard_at = self.permit.is_none().then_some(begun);
        loop {
            if self.has_ended && self.has_peer_ended && self.waiting.is_empty() {
                return Ok(());
            }
            let room = if self.has_ended { 0 } else { self.window.room().min(self.data_max) };
            let front = self.waiting.front().cloned();
            buffer.reserve(room);
            let mut read_into = (&mut buffer).limit(room);
            tokio::select! {
                message = self.incoming.next() => {
                    if self.take(&message.ok_or("the connection was lost")?)? {
                        heard_at = Some(Instant::now());
                    }
                }
                written = writer.write(front.as_deref().unwrap_or_default()), if front.is_some() => {
                    self.note_written(written.map_err(|error| error.to_string())?).await?;
                }
                read = reader.read_buf(&mut read_into), if room > 0 => {
                    let count = read.map_err(|error| error.to_string())?;
                    let message = match count {
                        0 => SocketMessage::End,
                        _ => SocketMessage::Data(buffer.split().to_vec()),
                    };
                    self.has_ended |= count == 0;
                    self.window.note_sent(count);
                    self.send(&message).await?;
                }
                () = sleep_until(begun + FIRST_TIMEOUT), if heard_at.is_none() => {
                    return Err("the dialling node sends nothing".into());
                }
                _ = alive.tick() => {
                    if heard_at.is_some_and(|heard_at| heard_at.elapsed() > SILENCE_MAX) {
                        return Err("the other node is silent".into());
                    }
                    let report = self.ledger.report();
                    self.send(&report).await?;
                }
            }
            if self.has_peer_ended && self.waiting.is_empty() {
                drop(writer.shutdown().await);
            }
        }
    }

    /// Takes a message. Returns whether it was one of the peer.
    fn take(&mut self, message: &[u8]) -> Result<bool, String> {
        match self.opener.open(message) {
            ReceivedMessage::Message(SocketMessage::Data(data)) => self.waiting.push_back(data.into()),
            ReceivedMessage::Message(SocketMessage::Read(sums)) => self.window.note_read(sums),
            ReceivedMessage::Message(SocketMessage::End) => self.has_peer_ended = true,
            ReceivedMessage::Message(SocketMessage::Abort) => return Err("the other node has ended it".into()),
            ReceivedMessage::Ignored => {
                self.store.counters.broker_ignored.increment();
                return Ok(false);
            }
            ReceivedMessage::Gap => {
                self.store.counters.broker_gaps.increment();
                return Err("a message was lost".into());
            }
        }
        Ok(true)
    }

    /// Removes data that the pipe has taken, and reports it to the peer before the window is used up.
    async fn note_written(&mut self, count: usize) -> Result<(), String> {
        if let Some(front) = self.waiting.front_mut() {
            front.advance(count);
            let is_empty = front.is_empty();
            if is_empty {
                self.waiting.pop_front();
            }
            self.ledger.note_read(count, usize::from(is_empty));
        }
        if self.ledger.is_due() {
            let report = self.ledger.report();
            self.send(&report).await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: &SocketMessage) -> Result<(), String> {
        let sealed = self.sealer.seal(message).map_err(|error| error.to_string())?;
        in_time(self.link.messages.publish(self.to.clone(), sealed.into())).await
    }
}
