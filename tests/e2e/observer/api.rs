//! The API alone: lists with pages, and limits.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{run_test, until};

use super::{NODES, ObserverScene, ask_api};

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
