//! Pass-through: requests for paths other than hubs are forwarded to an app server, unchanged in both directions.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use axum::body::Body;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::http_client::{HttpConnection, ask, get, post};
use trunkline_tests::harness::scenario::{run_test, until};

const NODE: &str = "x-trunkline-node";
const OUTCOMES: &str = "trunkline_pass_through_requests_total";

async fn passed(proxy: &Proxy, outcome: &str) -> Result<f64> {
    Ok(proxy.metrics().await?.sum(OUTCOMES, &[("outcome", outcome)]))
}

/// Headers that don't differ between answers or between servers.
fn lasting(headers: &HeaderMap) -> HeaderMap {
    let is_lasting = |name: &str| !["date", NODE, "connection", "keep-alive"].contains(&name);
    headers
        .iter()
        .filter(|(name, _)| is_lasting(name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[test]
fn pages_come_through_the_proxy_as_the_app_server_gives_them() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app_with(App::Status, &["--name", "ann"]).await?;
        let proxy = fleet.proxy(&app).await?;
        assert_eq!(get(proxy.address(), "/api").await?.body, "ann");
        let requests = [(Method::GET, "/"), (Method::HEAD, "/"), (Method::GET, "/nowhere"), (Method::POST, "/api")];
        for (method, path) in requests.clone() {
            let direct = ask(app.address(), method.clone(), path, &[]).await?;
            let through = ask(proxy.address(), method, path, &[]).await?;
            assert_eq!((through.status, &through.body), (direct.status, &direct.body), "{path}");
            assert_eq!(lasting(&through.headers), lasting(&direct.headers), "{path}");
            assert!(through.header(NODE).is_some(), "{path}");
        }
        let metrics = proxy.metrics().await?;
        assert_eq!(metrics.sum(OUTCOMES, &[("outcome", "answered")]), requests.len() as f64 + 1.0);
        assert_eq!(metrics.sum(OUTCOMES, &[]), requests.len() as f64 + 1.0);
        assert_eq!(metrics.sum("trunkline_requests_refused_total", &[]), 0.0, "an app's 404 is no refusal of ours");
        Ok(())
    });
}

#[test]
fn requests_and_answers_keep_their_bodies_and_lose_only_headers_of_one_hop() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Web).await?;
        let proxy = fleet.proxy(&app).await?;
        answers_without_a_body_stay_as_they_are(&app, &proxy).await?;
        hop_by_hop_headers_end_at_the_proxy_and_fleet_headers_can_not_be_forged(&proxy).await?;
        malformed_chunks_of_a_client_are_its_own_mistake(&proxy).await
    });
}

async fn answers_without_a_body_stay_as_they_are(app: &AppServer, proxy: &Proxy) -> Result<()> {
    let requests = [
        (Method::GET, "/status/204"),
        (Method::GET, "/status/304"),
        (Method::GET, "/status/500"),
        (Method::HEAD, "/mirror"),
        (Method::HEAD, "/events"),
    ];
    for (method, path) in requests {
        let direct = ask(app.address(), method.clone(), path, &[]).await?;
        let through = ask(proxy.address(), method, path, &[("host", app.address())]).await?;
        assert_eq!(through.status, direct.status, "{path}");
        let (through, direct) = (through.header("content-length"), direct.header("content-length"));
        // The length of the mirror's answer grows with the headers that the proxy adds.
        assert_eq!(through.is_some(), direct.is_some(), "{path} {through:?} {direct:?}");
    }
    // The app's own CORS rules apply here.
    let asked = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
    let answer = ask(proxy.address(), Method::OPTIONS, "/mirror", &asked).await?;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://only.example"));
    assert_eq!(answer.json()?["method"], "OPTIONS");
    Ok(())
}

async fn seen(proxy: &Proxy, headers: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
    let answer = ask(proxy.address(), Method::GET, "/mirror/a%20b?x=%2F&y", headers).await?.json()?;
    assert_eq!(answer["uri"], "/mirror/a%20b?x=%2F&y");
    let headers = answer["headers"].as_array().context("no headers")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(headers.iter().map(|header| (text(&header[0]), text(&header[1]))).collect())
}

async fn hop_by_hop_headers_end_at_the_proxy_and_fleet_headers_can_not_be_forged(proxy: &Proxy) -> Result<()> {
    let sent = [
        ("host", "shop.example"),
        ("connection", "keep-alive, x-own"),
        ("x-own", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic x"),
        ("upgrade", "websocket"),
        ("x-trunkline-node", "liar"),
        ("x-trunkline-forward", "liar"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x_forwarded_for", "6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("cookie", "a=1"),
        ("x-app", "1"),
    ];
    let mut seen = seen(proxy, &sent).await?;
    seen.sort();
    let expected = [
        ("cookie", "a=1"),
        ("host", "shop.example"),
        ("te", "trailers"),
        ("x-app", "1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-proto", "http"),
        ("x-real-ip", "127.0.0.1"),
    ];
    assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(proxy.metrics().await?.sum("trunkline_forward_marks_refused_total", &[]), 1.0);

    let answer = get(proxy.address(), "/hop-by-hop").await?;
    for name in ["x-own", "proxy-authenticate", "x-trunkline-anything"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("keep-alive"), Some("timeout=130"), "the proxy's, not the app's");
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    Ok(())
}

#[test]
fn app_servers_take_turns_and_one_that_is_gone_is_skipped() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let ann = fleet.app_with(App::Web, &["--name", "ann"]).await?;
        let mut bob = fleet.app_with(App::Web, &["--name", "bob"]).await?;
        let proxy = fleet.proxy_with(&[&ann, &bob], &[]).await?;
        let mut connection = HttpConnection::open(proxy.address()).await?;
        let mut name = async || -> Result<String> {
            let answer = connection.send(Method::GET, "/name", &[], Body::empty()).await?;
            assert_eq!(answer.status(), StatusCode::OK);
            Ok(String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?)
        };
        let names = [name().await?, name().await?, name().await?, name().await?];
        assert_eq!((&names[0], &names[1]), (&names[2], &names[3]));
        assert_eq!(BTreeSet::from(names).into_iter().collect::<Vec<_>>(), ["ann", "bob"]);

        bob.process.kill().await?;
        // Independent of whether the proxy has noticed.
        for _ in 0..6 {
            assert_eq!(name().await?, "ann");
        }
        assert_eq!(passed(&proxy, "answered").await?, 10.0);
        Ok(())
    });
}

#[test]
fn without_an_app_server_a_request_is_told_to_come_again() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Web).await?;
        let proxy = fleet.proxy(&app).await?;
        app.process.kill().await?;
        let answer = until(async || {
            let answer = post(proxy.address(), "/name").await?;
            // Until it has noticed, the proxy tries to forward.
            assert!([502, 503].contains(&answer.status.as_u16()), "{answer:?}");
            Ok((answer.status == StatusCode::SERVICE_UNAVAILABLE).then_some(answer))
        })
        .await?;
        assert!(answer.header("retry-after").is_some());
        assert!(passed(&proxy, "no_app_server").await? >= 1.0);
        Ok(())
    });
}

#[test]
fn an_app_server_that_says_nothing_is_given_up() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Web).await?;
        let proxy = fleet.proxy_with(&[&app], &["--upstream-answer-timeout", "1"]).await?;
        assert_eq!(get(proxy.address(), "/silent").await?.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(passed(&proxy, "timeout").await?, 1.0);
        assert_eq!(get(proxy.address(), "/name").await?.status, StatusCode::OK);
        Ok(())
    });
}

async fn malformed_chunks_of_a_client_are_its_own_mistake(proxy: &Proxy) -> Result<()> {
    let forms = ["zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcdef\r\n0\r\n\r\n", "-1\r\nabc\r\n", "3;\r\r\nabc"];
    for chunks in forms {
        let mut stream = TcpStream::connect(proxy.address()).await?;
        let head = "POST /mirror HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{chunks}").as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        assert_eq!(String::from_utf8_lossy(&status), "HTTP/1.1 400", "{chunks:?}");
    }
    let counted = (passed(proxy, "client_broken").await?, passed(proxy, "broken").await?);
    assert_eq!(counted, (forms.len() as f64, 0.0));
    assert_eq!(get(proxy.address(), "/name").await?.status, StatusCode::OK);
    Ok(())
}

#[test]
fn a_proxy_can_be_told_to_pass_nothing_through() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Web).await?;
        let proxy = fleet.proxy_with(&[&app], &["--no-pass-through"]).await?;
        let answer = get(proxy.address(), "/name").await?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(!answer.body.is_empty());
        assert_eq!(post(proxy.address(), "/hub/negotiate").await?.status, StatusCode::OK);
        assert_eq!(
            post(proxy.address(), "/hub/negotiate?negotiateVersion=1").await?.json()?["negotiateVersion"],
            json!(1)
        );
        Ok(())
    });
}
