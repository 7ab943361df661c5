//! The API alone: permissions, errors with the name of the field, lists with pages and limits.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet, Proxy, failure_of};
use trunkline_tests::harness::http_client::{ask, get};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{run_test, until};
use trunkline_tests::harness::sockets::free_address;

use super::{ADMIN_TOKEN, NODES, ObserverScene, ask_api, post};

const NOBODY: &str = "AAAAAAAAAAAAAAAAAAAAAA";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Stream of events, open until dropped.
struct Stream(#[expect(dead_code, reason = "held, so that it stays open")] TcpStream);

impl Stream {
    /// Requests the stream, and waits for the head of a successful response.
    async fn open(address: &str, path: &str) -> Result<Self> {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut line = [0; 15];
        socket.read_exact(&mut line).await?;
        ensure!(line == *b"HTTP/1.1 200 OK", "{}", String::from_utf8_lossy(&line));
        Ok(Self(socket))
    }
}

async fn status(address: &str, path: &str, token: Option<&str>) -> Result<u16> {
    let bearer = token.map(bearer);
    let headers: Vec<_> = bearer.iter().map(|value| ("authorization", value.as_str())).collect();
    Ok(ask(address, Method::GET, path, &headers).await?.status.as_u16())
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--admin-token", ADMIN_TOKEN]).await?;
        let long = "x".repeat(1_001);
        for (path, status, field) in [
            ("/api/clients?limit=0", 400, "limit"),
            ("/api/clients?limit=501", 400, "limit"),
            ("/api/clients?limit=many", 400, "limit"),
            ("/api/clients?after=nonsense", 400, "after"),
            ("/api/clients?colour=red", 400, "colour"),
            ("/api/clients?hub=a&hub=b", 400, "hub"),
            ("/api/clients?group=g", 400, "hub"),
            (&format!("/api/clients?user={long}"), 400, "user"),
            ("/api/clients?scope=world", 400, "scope"),
            ("/api/groups", 400, "hub"),
            ("/api/users?hub=bench&limit=501", 400, "limit"),
            ("/api/events?x=1", 400, "x"),
            (&format!("/api/clients/{NOBODY}/watch?payloads=yes"), 400, "payloads"),
            (&format!("/api/clients/{NOBODY}"), 404, ""),
            (&format!("/api/clients/{NOBODY}/watch"), 404, ""),
            ("/api/clients/short", 404, ""),
            ("/api/clients?hub=nowhere", 404, ""),
            ("/api/groups?hub=nowhere", 404, ""),
            ("/api/nothing", 404, ""),
            ("/nothing", 404, ""),
        ] {
            let answer = get(proxy.admin(), path).await?;
            let told = answer.json()?;
            assert_eq!(
                (answer.status.as_u16(), told["field"].as_str().unwrap_or_default()),
                (status, field),
                "{path}: {told}"
            );
            assert!(told["error"].as_str().is_some_and(|text| text.contains(field)), "{told}");
        }
        bodies(&proxy).await
    });
}

async fn bodies(proxy: &Proxy) -> Result<()> {
    let (path, token) = (format!("/api/clients/{NOBODY}/close"), bearer(ADMIN_TOKEN));
    let admin = [("authorization", token.as_str())];
    let long = json!({ "reason": "x".repeat(201) }).to_string();
    for (body, status, field) in [
        ("", 404, ""),
        ("{}", 404, ""),
        ("[1]", 400, "body"),
        ("{", 400, "body"),
        (r#"{"reason":7}"#, 400, "reason"),
        (r#"{"why":"so"}"#, 400, "why"),
        (&long, 400, "reason"),
        (&" ".repeat(5_000), 413, ""),
    ] {
        let answer = post(proxy.admin(), &path, &admin, body).await?;
        let told = answer.json().unwrap_or_default();
        assert_eq!(
            (answer.status.as_u16(), told["field"].as_str().unwrap_or_default()),
            (status, field),
            "{body}: {told}"
        );
    }
    assert_eq!(ask(proxy.admin(), Method::POST, &path, &admin).await?.status, 415, "a form can't say that it is JSON");
    assert_eq!(get(proxy.admin(), &path).await?.status, 405);
    Ok(())
}

#[test]
fn a_client_of_a_raw_endpoint_is_told_of_like_any_other() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Functional).await?;
        let proxy = fleet.proxy(&app).await?;
        let agent = [("user-agent", "a-device/1.0")];
        let opened = RawClient::try_open_with(proxy.address(), "/echo", &agent).await?;
        let _client = opened.map_err(|refusal| anyhow!("{refusal:?}"))?;
        let listed = ask_api(&proxy, "/api/clients").await?;
        let [listed] = listed["items"].as_array().map_or(&[][..], Vec::as_slice) else { bail!("{listed}") };
        let id = listed["id"].as_str().context("an id")?;
        let told = ask_api(&proxy, &format!("/api/clients/{id}")).await?;
        assert_eq!((&told["userAgent"], &told["protocol"]), (&json!("a-device/1.0"), &json!("raw")), "{told}");
        assert!(told["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{told}");
        Ok(())
    });
}

/// Maximum number of open streams of a node, and of watches of a shard.
const STREAMS: usize = 32;
const WATCHES: usize = 16;

#[test]
fn who_opens_more_streams_than_there_may_be_is_told_so_and_may_when_others_end() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &proxy.url("/bench")).open().await?;
        let watch = format!("/api/clients/{}/watch", client.connection_id()?);
        for (path, most) in [(watch.as_str(), WATCHES), ("/api/events", STREAMS)] {
            let mut open = Vec::new();
            for _ in 0..most {
                // Permits of ended streams are released when the node notices the end.
                open.push(until(async || Ok(Stream::open(proxy.admin(), path).await.ok())).await?);
            }
            let refused = get(proxy.admin(), path).await?;
            assert_eq!(refused.status, 429, "{}", refused.body);
            let told = refused.json()?["error"].as_str().is_some_and(|text| text.contains(&most.to_string()));
            assert!(told, "{}", refused.body);
            drop(open);
            until(async || Ok(Stream::open(proxy.admin(), path).await.ok())).await?;
        }
        Ok(())
    });
}

#[test]
fn who_may_look_and_who_may_act_depends_on_address_and_token() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let plain = fleet.proxy(&app).await?;
        let with_token = fleet.proxy_with(&[&app], &["--admin-token", ADMIN_TOKEN]).await?;
        let agents = Agents::new(fixture);
        let mut client = agents.client(Kind::JsJson, &with_token.url("/bench")).open().await?;
        let close = format!("/api/clients/{}/close", client.connection_id()?);
        let shown = format!("/api/clients/{}/watch?payloads=shown", client.connection_id()?);
        for (proxy, wanted) in [(&plain, 403), (&with_token, 401)] {
            assert_eq!(status(proxy.admin(), "/api/fleet", None).await?, 200);
            assert_eq!(status(proxy.admin(), "/api/fleet", Some("a-wrong-token-of-somebody")).await?, 401);
            assert_eq!(status(proxy.admin(), &shown, None).await?, 401);
            assert_eq!(post(proxy.admin(), &close, &[], "{}").await?.status, wanted);
        }
        let rebound = ask(plain.admin(), Method::GET, "/api/fleet", &[("host", "rebound.example")]).await?;
        assert_eq!(rebound.status, 403, "{}", rebound.body);
        assert_eq!(client.invoke("Echo", json!([1])).await?, 1, "nobody could close it");
        let token = bearer(ADMIN_TOKEN);
        let closed = post(with_token.admin(), &close, &[("authorization", &token)], r#"{"reason":"enough"}"#).await?;
        assert_eq!(closed.status, 200, "{}", closed.body);
        client.closed().await?;
        assert_eq!(post(with_token.admin(), &close, &[("authorization", &token)], "{}").await?.status, 404);
        Ok(())
    });
}

#[test]
fn beyond_this_machine_page_and_api_need_the_token_and_health_never_does() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let open = [("/healthz", 200), ("/readyz", 200), ("/metrics", 200)];
        for (more, metrics, others, with_token) in [
            (vec![], 200, 404, 404),
            (vec!["--admin-token", ADMIN_TOKEN], 200, 401, 200),
            (vec!["--admin-token", ADMIN_TOKEN, "--metrics-token", "the-token-of-the-metrics"], 401, 401, 200),
        ] {
            let admin = free_address()?;
            let everywhere = admin.replace("127.0.0.1", "0.0.0.0");
            let _proxy = fleet.proxy_of(&free_address()?, &everywhere, &[app.address()], &more)?;
            until(async || Ok(status(&admin, "/readyz", None).await.ok().filter(|at| *at == 200))).await?;
            for (path, good) in open {
                let wanted = if path == "/metrics" { metrics } else { good };
                assert_eq!(status(&admin, path, None).await?, wanted, "{path} {more:?}");
            }
            for path in ["/", "/api/fleet", "/api/clients", "/api/session"] {
                assert_eq!(status(&admin, path, None).await?, others, "{path} {more:?}");
                assert_eq!(status(&admin, path, Some(ADMIN_TOKEN)).await?, with_token, "{path} {more:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_token_that_could_be_guessed_and_a_peer_that_is_none_are_refused_at_the_start() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        for (more, told) in [
            (["--admin-token", "short"], "--admin-token must have from 16"),
            (["--metrics-token", "short"], "--metrics-token must have from 16"),
            (["--admin-token-file", "/nowhere/at/all"], "--admin-token-file /nowhere/at/all can't be read"),
            (["--peers", "proxy-b"], "--peers \"proxy-b\" is not a URL"),
        ] {
            let mut proxy = fleet.proxy_of(&free_address()?, &free_address()?, &["127.0.0.1:1"], &more)?;
            let log = failure_of(&mut proxy.process).await?;
            assert!(log.contains(told), "{log}");
        }
        Ok(())
    });
}

/// All pages of a list.
async fn pages(proxy: &Proxy, path: &str) -> Result<Vec<Vec<Value>>> {
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let page = ask_api(proxy, &format!("{path}{after}")).await?;
        pages.push(page["items"].as_array().with_context(|| page.to_string())?.clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(pages),
        }
    }
}

#[test]
fn lists_come_in_pages_that_hold_each_client_of_all_nodes_once() {
    run_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let (mut clients, mut all) = (Vec::new(), BTreeSet::new());
        for number in 0..9 {
            let client = scene.client(&agents, number).await?;
            all.insert(client.connection_id()?.to_owned());
            clients.push(client);
        }
        for proxy in &scene.proxies {
            let found = pages(proxy, "/api/clients?limit=2").await?;
            assert!(found.iter().all(|page| page.len() <= 2));
            let ids: Vec<_> = found.concat().iter().map(|client| client["id"].as_str().unwrap().to_owned()).collect();
            assert_eq!((ids.len(), ids.into_iter().collect()), (9, all.clone()));
            let of_one: Vec<_> = pages(proxy, "/api/clients?node=proxy-b&limit=2").await?.concat();
            assert!(of_one.len() == 3 && of_one.iter().all(|client| client["node"] == NODES[1]), "{of_one:?}");
            let groups = pages(proxy, "/api/groups?hub=bench&limit=3").await?;
            assert_eq!(
                groups.concat(),
                [json!(["room-0", 3]), json!(["room-1", 2]), json!(["room-2", 2]), json!(["room-3", 2])]
            );
            let users = pages(proxy, "/api/users?hub=bench&limit=1").await?.concat();
            assert_eq!(users.len(), 5, "{users:?}");
            let of_group = pages(proxy, "/api/clients?hub=bench&group=room-0&limit=1").await?.concat();
            assert_eq!(of_group.len(), 3, "{of_group:?}");
        }
        Ok(())
    });
}
