//! Tests of an app that shares its listener with the embedded node: the node handles WebSocket connects, the router
//! everything else.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use trunkline::HubProtocol::Json;
use trunkline::{Hub, Negotiation, Server};

use super::browser::Browser;
use crate::harness::KEY;

/// Length of a cookie that makes the node leave the request to the HTTP server.
const LONG: usize = 3000;

/// Headers of an upgrade by a page of another site, with the end of the head.
const EVIL_UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\norigin: https://evil.example\r\n\r\n";

/// Thread that decided about a client, and the `X-Real-IP` that it saw.
type Decision = (ThreadId, Option<HeaderValue>);

/// An app that shares its listener. `/peer` returns the address of the client.
struct DirectApp {
    address: SocketAddr,
    /// Number of requests handled by the router.
    routed: Arc<AtomicU32>,
    decided: Arc<Mutex<Vec<Decision>>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl DirectApp {
    async fn start() -> Self {
        let (routed, decided) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let count = {
            let routed = Arc::clone(&routed);
            move |request: Request, next: Next| {
                routed.fetch_add(1, Ordering::Relaxed);
                next.run(request)
            }
        };
        let decide = {
            let decided = Arc::clone(&decided);
            async move |headers: HeaderMap| {
                decided.lock().unwrap().push((thread::current().id(), headers.get("x-real-ip").cloned()));
                Negotiation::new()
            }
        };
        let hub = Hub::new("/chat").method("Nothing", async || ()).on_negotiate(decide);
        let server = Server::new().access_key(KEY).hub(hub).embedded();
        let handle = server.handle();
        let peer = get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string());
        let app = Router::new().route("/peer", peer).merge(server.into_router().unwrap()).layer(from_fn(count));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let signal = async move { drop(stopped.await) };
        let serving = trunkline::serve(listener, app, &handle).direct_websockets().with_signal(signal);
        Self { address, routed, decided, stop, serving: tokio::spawn(serving.into_future()) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects a client with a cookie of this length to the hub, and lets the hub call it.
    async fn client(&self, cookie_bytes: usize) -> Browser {
        let mut request = format!("ws://{}/chat", self.address).into_client_request().unwrap();
        request.headers_mut().insert("x-real-ip", "10.0.0.9".parse().unwrap());
        request.headers_mut().insert("cookie", "a".repeat(cookie_bytes).parse().unwrap());
        let mut client = Browser::over(self.connect().await, request, Json).await;
        assert_eq!(client.call("Nothing", "[]").await, [r#"{"type":3,"invocationId":"1","result":null}"#]);
        client
    }

    fn routed(&self) -> u32 {
        self.routed.load(Ordering::Relaxed)
    }
}

/// Reads a response up to this text.
async fn read_until(tcp: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        answer.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_node_takes_connects_and_the_app_sees_the_same_as_by_its_router() {
    let app = DirectApp::start().await;
    let mut ann = app.client(1).await;
    assert_eq!(app.routed(), 0, "it came by the node");
    let bob = app.client(LONG).await;
    assert_eq!(app.routed(), 1, "its long head came by the router");
    let decided = (thread::current().id(), Some("10.0.0.9".parse().unwrap()));
    assert_eq!(*app.decided.lock().unwrap(), [decided.clone(), decided], "on the app's own runtime");

    app.stop.send(()).unwrap();
    assert_eq!(ann.next().await.as_ref(), b"{\"type\":7,\"allowReconnect\":true}\x1e");
    drop((ann, bob));
    app.serving.await.unwrap().unwrap();
    // The node's thread closes the listener, and with it connections that are still waiting.
    while let Ok(mut late) = TcpStream::connect(app.address).await {
        assert!(late.read_u8().await.is_err(), "nobody is served any more");
    }
}

#[tokio::test]
async fn the_router_gets_the_rest() {
    let app = DirectApp::start().await;
    let mut page = app.connect().await;
    let peer = page.local_addr().unwrap().to_string();
    for length in [0, 10, LONG] {
        let cookie = "a".repeat(length);
        let request = format!("GET /peer HTTP/1.1\r\nhost: app\r\ncookie: {cookie}\r\n\r\n");
        page.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut page, &peer).await;
    }
    assert_eq!(app.routed(), 3);

    let mut own = app.connect().await;
    let head = format!("GET /peer HTTP/1.1\r\nhost: app\r\nhost: twice\r\n{EVIL_UPGRADE}");
    own.write_all(head.as_bytes()).await.unwrap();
    let peer = own.local_addr().unwrap().to_string();
    read_until(&mut own, &peer).await;
    assert_eq!(app.routed(), 4, "upgrades of its own routes, too, whatever a hub would say to them");

    let mut evil = app.connect().await;
    let head = format!("GET /chat HTTP/1.1\r\nhost: app\r\n{EVIL_UPGRADE}");
    evil.write_all(format!("{head}GET /peer HTTP/1.1\r\nhost: app\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    evil.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!((answer.matches("HTTP/1.1").count(), app.routed()), (1, 4), "{answer}");

    // The router is case-sensitive, so the node is too.
    let mut shouting = app.connect().await;
    let upgrade = EVIL_UPGRADE.replace("origin: https://evil.example\r\n", "");
    shouting.write_all(format!("GET /CHAT HTTP/1.1\r\nhost: app\r\n{upgrade}").as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut shouting, "\r\n").await, "HTTP/1.1 404 Not Found\r\n");
}

#[tokio::test]
async fn without_a_node_inside_the_router_gets_everything() {
    let server = Server::new().access_key(KEY).hub(Hub::new("/chat"));
    let handle = server.handle();
    let app = Router::new().route("/", get(async || "page")).merge(server.into_router().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut page = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tokio::spawn(trunkline::serve(listener, app, &handle).direct_websockets().into_future());
    page.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
    read_until(&mut page, "page").await;
}
