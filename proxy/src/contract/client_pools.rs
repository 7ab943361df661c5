//! Clients of HTTP transports that behave like .NET's: requests share a pool of keep-alive connections, pings are
//! posted every 15 s, and a POST that hits a closing connection is not retried.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ::http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use super::app::AppLink;
use super::client::{JSON_HANDSHAKE, PING};
use super::fixture::{Fixture, paused, settings};
use super::http::{HttpConnection, negotiate, request};

/// Network latency. Without it, no request can cross a close.
const LATENCY: Duration = Duration::from_millis(20);

const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Duration for which the clients stay idle.
const WHILE: Duration = Duration::from_secs(120);

const CLIENTS_OF_EACH_KIND: u64 = 150;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    EventStream,
    LongPolling,
}

/// Connections of one client to the node, and the state of its requests.
struct PooledClient<'a> {
    fixture: &'a Fixture,
    target: String,
    /// The most recently used connection is reused first.
    idle: Rc<RefCell<Vec<HttpConnection>>>,
}

async fn carry(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        // sleep: simulates network latency in paused time
        sleep(LATENCY).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // sleep: the close is delayed by the same latency
    sleep(LATENCY).await;
    // Fails if the peer is gone.
    let _ = to.shutdown().await;
}

/// Opens a connection with latency to a node.
fn dial_far(fixture: &Fixture) -> DuplexStream {
    let (near, far) = duplex(64 * 1024);
    let ((near_read, near_write), (node_read, node_write)) = (split(far), split(fixture.dial()));
    spawn_local(carry(near_read, node_write));
    spawn_local(carry(node_read, near_write));
    near
}

impl PooledClient<'_> {
    async fn connection(&self) -> HttpConnection {
        loop {
            let pooled = self.idle.borrow_mut().pop();
            match pooled {
                Some(connection) if connection.is_usable() => return connection,
                Some(_) => {}
                None => return HttpConnection::over(dial_far(self.fixture)).await,
            }
        }
    }

    /// Sends a request without retrying after it was written.
    async fn send(&self, method: &str, body: &str) -> hyper::Result<StatusCode> {
        loop {
            let mut connection = self.connection().await;
            match connection.attempt(self.request(method, body)).await {
                // The connection was closed before the request was written.
                Err(error) if error.is_canceled() => {}
                answer => {
                    self.idle.borrow_mut().push(connection);
                    return answer;
                }
            }
        }
    }

    fn request(&self, method: &str, body: &str) -> Request<String> {
        request(method, &self.target, body)
    }

    /// Opens the connection. The app server answers its hub handshake.
    async fn open(&self, kind: Kind, link: &mut AppLink) -> Option<(HttpConnection, hyper::body::Incoming)> {
        let mut stream = None;
        if kind == Kind::EventStream {
            let mut connection = self.connection().await;
            let mut get = self.request("GET", "");
            get.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
            let body = connection.begin(get).await.into_body();
            stream = Some((connection, body));
        } else {
            assert_eq!(self.send("GET", "").await.unwrap(), StatusCode::OK);
        }
        assert_eq!(self.send("POST", JSON_HANDSHAKE).await.unwrap(), StatusCode::OK);
        let id = link.opening().await.connection_id;
        link.data().await;
        link.write(&id, "{}\u{1e}").await;
        stream
    }

    /// Posts pings until `until`; `false` if one hit a closed connection.
    async fn ping(&self, interval: Duration, until: Instant) -> bool {
        // The interval starts when a ping is sent, not when it is answered.
        let mut next = Instant::now() + interval;
        while next < until {
            // sleep: the test advances paused time
            sleep_until(next).await;
            next += interval;
            if !matches!(self.send("POST", &format!("{PING}\u{1e}")).await, Ok(StatusCode::OK)) {
                return false;
            }
        }
        true
    }

    async fn poll(&self, until: Instant) -> bool {
        while Instant::now() < until {
            if !matches!(self.send("GET", "").await, Ok(StatusCode::OK)) {
                return false;
            }
        }
        true
    }
}

/// Keeps clients idle for two minutes, and returns the number of clients that lost a request.
async fn broken_clients(fixture: &'static Fixture, link: &mut AppLink) -> u64 {
    let (broken, mut tasks): (_, Vec<JoinHandle<()>>) = (Rc::new(Cell::new(0)), Vec::new());
    for number in 0..2 * CLIENTS_OF_EACH_KIND {
        let kind = if number % 2 == 0 { Kind::EventStream } else { Kind::LongPolling };
        let (_, token) = negotiate(fixture, "/chat", "").await;
        let target = format!("/chat?id={token}");
        let client = Rc::new(PooledClient { fixture, target, idle: Rc::default() });
        let stream = client.open(kind, link).await;
        let until = Instant::now() + WHILE;
        // Client timers are some milliseconds late.
        let interval = PING_INTERVAL + Duration::from_millis(number % 50);
        let (pinging, polling, broken) = (client.clone(), client, broken.clone());
        tasks.push(spawn_local(async move {
            let reads = async {
                match stream {
                    Some((_connection, body)) => {
                        let end = http_body_util::BodyExt::collect(body);
                        tokio::time::timeout_at(until, end).await.is_err()
                    }
                    None => polling.poll(until).await,
                }
            };
            let (pings, reads) = tokio::join!(pinging.ping(interval, until), reads);
            broken.set(broken.get() + u64::from(!(pings && reads)));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    broken.get()
}

async fn broken_with(keep_alive: Option<Duration>) -> u64 {
    let mut settings = settings();
    if let Some(keep_alive) = keep_alive {
        settings.limits.keep_alive_timeout = keep_alive;
    }
    // Test tasks are local and can't borrow.
    let fixture: &'static Fixture = Box::leak(Box::new(Fixture::with(settings, 2)));
    let mut link = fixture.server("app-1").await;
    broken_clients(fixture, &mut link).await
}

#[tokio::test(crate = "paused")]
async fn pooled_clients_that_are_left_alone_for_two_minutes_all_stay() {
    assert_eq!(broken_with(None).await, 0);
}

#[tokio::test(crate = "paused")]
async fn an_idle_time_out_of_the_ping_interval_breaks_pooled_clients_so_the_test_above_bites() {
    assert!(broken_with(Some(PING_INTERVAL)).await > 0);
}
