//! Peers that are not nodes: reported, explained, and without effect on others.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use trunkline_tests::harness::client::Agents;
use trunkline_tests::harness::fleet::Proxy;
use trunkline_tests::harness::scenario::{run_test, until};
use trunkline_tests::harness::sockets::free_address;

use super::{FleetScene, got, reaches, to_all, told};

/// Answer of a server that does not speak HTTP.
const GARBAGE: &[u8] = b"\x00\xff\x16\x03 this is no HTTP\r\n\r\n\x1e\x1e";

/// Response of a node of a version without fleets to a channel request.
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// Server that answers each request with these bytes, or not at all.
async fn stranger(answer: Option<&'static [u8]>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while let Ok(1..) = socket.read(&mut asked).await {
                    if let Some(answer) = answer {
                        drop(socket.write_all(answer).await);
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Reason why a node can't reach the peer at this address, as soon as the node reports it.
async fn problem(node: &Proxy, address: &str) -> Result<String> {
    until(async || {
        let fleet = told(node).await?;
        let unreachable = fleet["unreachable"].as_array().cloned().unwrap_or_default();
        let mut named = unreachable.iter().filter(|peer| peer["url"].as_str().is_some_and(|url| url.contains(address)));
        Ok(named.next().and_then(|peer| peer["problem"].as_str()).map(str::to_owned))
    })
    .await
}

#[test]
fn peers_that_are_no_nodes_are_told_apart_and_disturb_nobody() {
    run_test(async |fixture| {
        let mut scene = FleetScene::begin(fixture, &[], &[]).await?;
        let admins = [free_address()?, free_address()?];
        let nobody = free_address()?;
        let [garbage, not_found, silent] =
            [stranger(Some(GARBAGE)).await?, stranger(Some(NOT_FOUND)).await?, stranger(None).await?];
        let strangers = [garbage, not_found, silent, scene.app.address().to_owned(), nobody];
        let nowhere = "no-such-host.invalid:8090";
        let mut peers: Vec<&str> = admins.iter().chain(&strangers).map(String::as_str).collect();
        peers.push(nowhere);
        for (name, admin) in ["node-a", "node-b"].iter().zip(&admins) {
            scene.start(name, admin, &peers, &[])?;
        }
        for node in &mut scene.nodes {
            node.ready().await?;
        }
        for node in &scene.nodes {
            let words = ["HTTP", "no channel", "no answer", "not an admin port", "refused", "can't be resolved"];
            for (stranger, word) in strangers.iter().map(String::as_str).chain([nowhere]).zip(words) {
                let problem = problem(node, stranger).await?;
                ensure!(problem.contains(word), "{stranger} should be told as {word:?}, but is as {problem:?}");
            }
            until(async || Ok(is_linked(&told(node).await?)?.then_some(()))).await?;
        }
        let agents = Agents::new(fixture);
        let mut clients = scene.crowd(&agents, &scene.nodes).await?;
        for node in &scene.nodes {
            reaches(node, &to_all("regardless"), 2, clients.len()).await?;
        }
        got(&mut clients, &scene.nodes[0], &["regardless", "regardless"]).await
    });
}

/// Whether both nodes are visible and ready.
fn is_linked(fleet: &Value) -> Result<bool> {
    let nodes = fleet["nodes"].as_array().context("nodes")?;
    Ok(nodes.iter().filter(|node| node["state"] == "ready").count() == 2)
}
