//! App whose listener the node inside shares: WebSocket connects are the node's, everything else is the router's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use trunkline::HubProtocol::Json;
use trunkline::{Hub, Negotiation, Server};

use crate::browser::Browser;
use crate::harness::KEY;

/// Bytes of a cookie that the node leaves to an HTTP server.
const LONG: usize = 3000;

/// Reads an answer up to the end of this text.
async fn read_until(tcp: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        answer.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_node_takes_connects_from_their_sockets_and_the_router_gets_the_rest() {
    let seen = Arc::new(AtomicU32::new(0));
    let count = {
        let seen = Arc::clone(&seen);
        move |request: Request, next: Next| {
            seen.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        }
    };
    let deciding = Arc::new(Mutex::new(Vec::new()));
    let decide = {
        let deciding = Arc::clone(&deciding);
        async move |headers: HeaderMap| {
            deciding.lock().unwrap().push((thread::current().id(), headers["x-real-ip"].clone()));
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
    let serving = tokio::spawn(serving.into_future());
    let (connect, url) = (|| TcpStream::connect(address), format!("ws://{address}/chat"));
    let null = [r#"{"type":3,"invocationId":"1","result":null}"#];

    let request = |cookie: String| {
        let mut request = url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("x-real-ip", "10.0.0.9".parse().unwrap());
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        request
    };
    let mut ann = Browser::over(connect().await.unwrap(), request("a".into()), Json).await;
    assert_eq!(ann.call("Nothing", "[]").await, null);
    assert_eq!(seen.load(Ordering::Relaxed), 0, "it came by the node");

    let mut bob = Browser::over(connect().await.unwrap(), request("a".repeat(LONG)), Json).await;
    assert_eq!(bob.call("Nothing", "[]").await, null);
    assert_eq!(seen.load(Ordering::Relaxed), 1, "its long head came by the router");
    let on_own_runtime = (thread::current().id(), "10.0.0.9".parse().unwrap());
    assert_eq!(
        *deciding.lock().unwrap(),
        [on_own_runtime.clone(), on_own_runtime],
        "the app sees the same in both cases"
    );

    let mut page = connect().await.unwrap();
    let peer = page.local_addr().unwrap().to_string();
    for length in [0, 10, LONG] {
        let cookie = "a".repeat(length);
        page.write_all(format!("GET /peer HTTP/1.1\r\nhost: app\r\ncookie: {cookie}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        read_until(&mut page, &peer).await;
    }
    assert_eq!(seen.load(Ordering::Relaxed), 4, "pages are the app's");

    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\norigin: https://evil.example\r\n\r\n";
    let mut own = connect().await.unwrap();
    own.write_all(format!("GET /peer HTTP/1.1\r\nhost: app\r\nhost: twice\r\n{upgrade}").as_bytes()).await.unwrap();
    let peer = own.local_addr().unwrap().to_string();
    read_until(&mut own, &peer).await;
    assert_eq!(
        seen.load(Ordering::Relaxed),
        5,
        "upgrades of its own routes are, too, whatever a hub would say to them"
    );

    let mut evil = connect().await.unwrap();
    let head = format!("GET /chat HTTP/1.1\r\nhost: app\r\n{upgrade}");
    evil.write_all(format!("{head}GET /peer HTTP/1.1\r\nhost: app\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    evil.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!((answer.matches("HTTP/1.1").count(), seen.load(Ordering::Relaxed)), (1, 5), "{answer}");

    stop.send(()).unwrap();
    assert_eq!(ann.next().await.as_ref(), b"{\"type\":7,\"allowReconnect\":true}\x1e");
    drop((ann, bob, page, own));
    serving.await.unwrap().unwrap();
    // The node's thread closes the listener, and with it who has come too late.
    while let Ok(mut late) = connect().await {
        assert!(late.read_u8().await.is_err(), "nobody is served any more");
    }
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
