//! Pass-through of streams: uploads, event streams, WebSockets, and how each ends.

use anyhow::{Context, Result};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use trunkline_generator::memory::Resident;
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::http_client::{HttpConnection, get};
use trunkline_tests::harness::scenario::{run_test, until};

const BYTES: &str = "trunkline_pass_through_bytes_total";

/// Size of an upload, larger than any buffer, and of its pieces.
const UPLOAD_BYTES: usize = 20 << 20;
const PIECE_BYTES: usize = 64 * 1024;

/// Memory that a proxy may use for an upload of any size.
const UPLOAD_MEMORY_MAX_BYTES: u64 = 4 << 20;

async fn bytes(proxy: &Proxy, direction: &str) -> Result<f64> {
    Ok(proxy.metrics().await?.sum(BYTES, &[("direction", direction)]))
}

#[test]
fn an_upload_is_streamed_whole_and_is_not_kept_in_memory() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Web).await?;
        let proxy = fleet.proxy(&app).await?;
        let pieces: Vec<u8> = (0..=250).cycle().take(PIECE_BYTES).collect();
        let pieces = Bytes::from(pieces);
        let count = UPLOAD_BYTES / PIECE_BYTES;
        let sum = (0..count).fold(0_u64, |sum, _| {
            pieces.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
        });
        // The first request has one-time costs.
        get(proxy.address(), "/name").await?;
        let before = Resident::of(proxy.process.id()?)?.peak_bytes;
        for length in [None, Some(UPLOAD_BYTES.to_string())] {
            let pieces = pieces.clone();
            let body =
                Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, std::io::Error>(pieces.clone()))));
            let headers: Vec<_> = length.iter().map(|length| ("content-length", length.as_str())).collect();
            let mut connection = HttpConnection::open(proxy.address()).await?;
            let answer = connection.send(Method::PUT, "/mirror", &headers, body).await?;
            let seen: serde_json::Value = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
            assert_eq!((&seen["bytes"], &seen["sum"]), (&UPLOAD_BYTES.into(), &sum.into()), "{length:?}");
        }
        let grown = Resident::of(proxy.process.id()?)?.peak_bytes - before;
        assert!(grown < UPLOAD_MEMORY_MAX_BYTES, "an upload of {UPLOAD_BYTES} bytes took {grown} of memory");
        assert_eq!(bytes(&proxy, "up").await?, 2.0 * UPLOAD_BYTES as f64);
        Ok(())
    });
}

#[test]
fn streams_and_upgrades_go_both_ways_until_either_end_gives_up() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Web).await?;
        let proxy = fleet.proxy(&app).await?;
        events_of_an_app_come_when_they_are_sent(&proxy).await?;
        trailers_reach_clients_that_accept_them(&proxy).await?;
        a_web_socket_of_the_app_goes_through_untouched(&proxy).await?;
        an_end_that_has_said_all_still_hears_the_other(&proxy).await?;
        who_gives_up_reading_stops_the_app_server_and_the_reverse(&app, &proxy).await
    });
}

async fn events_of_an_app_come_when_they_are_sent(proxy: &Proxy) -> Result<()> {
    let mut reader = HttpConnection::open(proxy.address()).await?;
    let mut events = reader.send(Method::GET, "/events", &[], Body::empty()).await?.into_body();
    let mut next = async || -> Result<Bytes> {
        events.frame().await.context("the events are over")??.into_data().ok().context("no data")
    };
    assert_eq!(next().await?, ": open\n\n");
    let mut teller = HttpConnection::open(proxy.address()).await?;
    for text in ["one", "two", "three"] {
        teller.send(Method::POST, "/tell", &[], text.into()).await?.into_body().collect().await?;
        // The next part is sent only after this one has arrived, so no part waits for later data.
        assert_eq!(next().await?, format!("data: {text}\n\n"));
    }
    Ok(())
}

async fn trailers_reach_clients_that_accept_them(proxy: &Proxy) -> Result<()> {
    let mut connection = HttpConnection::open(proxy.address()).await?;
    let answer = connection.send(Method::GET, "/trailers", &[("te", "trailers")], Body::empty()).await?;
    let collected = answer.into_body().collect().await?;
    let trailer = collected.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
    assert_eq!((collected.to_bytes().as_ref(), trailer.context("no trailer")?.as_bytes()), (&b"body"[..], &b"42"[..]));
    Ok(())
}

async fn a_web_socket_of_the_app_goes_through_untouched(proxy: &Proxy) -> Result<()> {
    let mut request = format!("ws://{}/socket", proxy.address()).into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", "echo".parse()?);
    let stream = TcpStream::connect(proxy.address()).await?;
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await?;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "echo");
    assert!(answer.headers().contains_key("x-trunkline-node"));
    for message in [Message::text("hello"), Message::binary(vec![7; 300_000]), Message::text("")] {
        socket.send(message.clone()).await?;
        assert_eq!(socket.next().await.context("it is closed")??, message);
    }
    socket.close(None).await?;
    while socket.next().await.is_some() {}
    let metrics = proxy.metrics().await?;
    assert_eq!(metrics.sum("trunkline_pass_through_upgrades_total", &[]), 1.0);
    assert!(bytes(proxy, "up").await? > 300_000.0 && bytes(proxy, "down").await? > 300_000.0);
    Ok(())
}

/// Reads the head of a response.
async fn head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.with_context(|| format!("after {}", String::from_utf8_lossy(&head)))?);
    }
    Ok(String::from_utf8(head)?)
}

async fn an_end_that_has_said_all_still_hears_the_other(proxy: &Proxy) -> Result<()> {
    let mut stream = TcpStream::connect(proxy.address()).await?;
    stream.write_all(b"GET /tally HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: tally\r\n\r\n").await?;
    let head = head(&mut stream).await?.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: tally\r\n"), "{head}");
    stream.write_all(&[1; 100_000]).await?;
    stream.shutdown().await?;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await?;
    assert_eq!(rest, "100000");
    Ok(())
}

async fn who_gives_up_reading_stops_the_app_server_and_the_reverse(app: &AppServer, proxy: &Proxy) -> Result<()> {
    let mut connection = HttpConnection::open(proxy.address()).await?;
    let mut endless = connection.send(Method::GET, "/endless", &[], Body::empty()).await?.into_body();
    endless.frame().await.context("nothing came")??;
    drop((endless, connection));
    // The response arrives when the app server has detected the closed connection.
    assert_eq!(get(app.address(), "/abandoned").await?.status, StatusCode::OK);

    let mut connection = HttpConnection::open(proxy.address()).await?;
    let broken = connection.send(Method::GET, "/broken", &[], Body::empty()).await?;
    let mut broken = broken.into_body();
    let half = broken.frame().await.context("nothing came")??.into_data().ok().context("no data")?;
    assert_eq!(half, "half");
    HttpConnection::open(app.address()).await?.send(Method::POST, "/tell", &[], "end".into()).await?;
    assert!(broken.collect().await.is_err(), "half a body must not look like a whole one");
    // No effect on others, and a stop does not wait for closed requests.
    assert_eq!(get(proxy.address(), "/name").await?.status, StatusCode::OK);
    Ok(())
}

#[test]
fn the_body_time_out_ends_answers_that_nobody_reads_and_no_event_stream() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Web).await?;
        let proxy = fleet.proxy_with(&[&app], &["--body-timeout", "1"]).await?;
        an_answer_that_nobody_reads_frees_its_app_server(&app, &proxy).await?;
        an_event_stream_outlives_the_body_time_out_while_its_app_is_silent(&proxy).await
    });
}

async fn an_answer_that_nobody_reads_frees_its_app_server(app: &AppServer, proxy: &Proxy) -> Result<()> {
    let mut unread = TcpStream::connect(proxy.address()).await?;
    unread.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    // The response arrives when the app server has detected the closed connection.
    assert_eq!(get(app.address(), "/abandoned").await?.status, StatusCode::OK);
    Ok(())
}

async fn an_event_stream_outlives_the_body_time_out_while_its_app_is_silent(proxy: &Proxy) -> Result<()> {
    let mut reader = HttpConnection::open(proxy.address()).await?;
    let mut events = reader.send(Method::GET, "/events", &[], Body::empty()).await?.into_body();
    assert_eq!(events.frame().await.context("no event")??.into_data().ok().context("no data")?, ": open\n\n");
    // Another client's upload times out meanwhile.
    let mut late = TcpStream::connect(proxy.address()).await?;
    late.write_all(b"POST /mirror HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nx").await?;
    let refused = head(&mut late).await?;
    assert!(refused.starts_with("HTTP/1.1 408 "), "{refused}");
    HttpConnection::open(proxy.address()).await?.send(Method::POST, "/tell", &[], "on".into()).await?;
    assert_eq!(events.frame().await.context("it is over")??.into_data().ok().context("no data")?, "data: on\n\n");
    Ok(())
}

#[test]
fn a_body_is_sent_only_when_the_app_server_asks_for_it() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Web).await?;
        let proxy = fleet.proxy(&app).await?;
        let ask = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").into_bytes()
        };
        let mut stream = TcpStream::connect(proxy.address()).await?;
        stream.write_all(&ask("/refuse")).await?;
        let refused = head(&mut stream).await?;
        assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");

        let mut stream = TcpStream::connect(proxy.address()).await?;
        stream.write_all(&ask("/mirror")).await?;
        let go_on = head(&mut stream).await?;
        assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
        stream.write_all(b"hello").await?;
        let answer = head(&mut stream).await?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        until(async || Ok((bytes(&proxy, "up").await? == 5.0).then_some(()))).await
    });
}
