//! Records of groups: official clients at two nodes follow what back ends send through both.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::sleep;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::{Agents, CLIENTS_FOLDER, Kind, Streamed};
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet, Proxy};
use trunkline_tests::harness::http_client::exchange;
use trunkline_tests::harness::nats::Nats;
use trunkline_tests::harness::process::Process;
use trunkline_tests::harness::scenario::{Fixture, is_full, run_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token::signed;

/// Messages sent before the clients follow, and in all.
const BEFORE: u64 = 20;
const ALL: u64 = 500;

/// Kills, half of them of nodes and half of NATS servers.
const ROUNDS: usize = 6;
const ROUNDS_FULL: usize = 120;

/// Starts two nodes with recorded groups. The webhook of their hub answers nothing.
async fn nodes(fixture: &Fixture) -> Result<Vec<Proxy>> {
    nodes_with(fixture, 2, &[]).await
}

/// Starts nodes with these arguments as well.
async fn nodes_with(fixture: &Fixture, count: usize, more: &[&str]) -> Result<Vec<Proxy>> {
    let file = fixture.folder().join("rules.toml");
    std::fs::write(&file, "[[history]]\nhub = \"chat\"\ngroups = \"room-*\"\nmessages = 100000\n")?;
    let (rules, webhook) = (file.to_str().context("a path in UTF-8")?, free_address()?);
    let webhook = format!("chat=http://{webhook}/{{event}}");
    let admins = (0..count).map(|_| free_address()).collect::<Result<Vec<_>>>()?;
    let peers = admins.iter().map(|admin| format!("http://{admin}")).collect::<Vec<_>>().join(",");
    let mut nodes = Vec::new();
    for admin in &admins {
        let arguments = ["--upstream-webhook", &webhook, "--rest", "--config", rules, "--peers", &peers];
        nodes.push(Fleet::new(fixture).proxy_of(&free_address()?, admin, &[], &[&arguments[..], more].concat())?);
    }
    for node in &mut nodes {
        node.ready().await?;
    }
    Ok(nodes)
}

fn numbers(streamed: &Streamed) -> Vec<Option<u64>> {
    streamed.items.iter().map(|item| item["arguments"][0].as_u64()).collect()
}

async fn send(back_end: &BackEnd, number: u64) -> Result<String> {
    let answer = back_end.send("/groups/room-1/:send", "Said", &json!(number)).await?;
    Ok(answer["position"].as_str().context("a recorded message has a position")?.to_owned())
}

#[test]
fn official_clients_follow_a_group_from_any_position_at_any_node() {
    run_test(async |fixture| {
        let nodes = nodes(fixture).await?;
        let back_ends: Vec<_> =
            nodes.iter().map(|node| BackEnd::trusted(node.address(), "chat", ACCESS_KEY)).collect::<Result<_>>()?;
        let (agents, mut clients) = (Agents::new(fixture), Vec::new());
        for (node, kind) in nodes.iter().flat_map(|node| Kind::ALL.map(|kind| (node, kind))) {
            let client = agents.client(kind, &node.url("/chat")).subscribe(&["Said"]).open().await?;
            let path = format!("/groups/room-1/connections/{}", client.connection_id()?);
            assert_eq!(back_ends[0].status(Method::PUT, &path).await?, 200);
            clients.push(client);
        }
        let mut positions = Vec::new();
        for number in 0..BEFORE {
            positions.push(send(&back_ends[0], number).await?);
        }
        let last = positions.last().context("messages were sent")?;
        let terms = [json!({ "after": "0" }), json!({ "after": last }), json!({ "last": 1 })];
        // The last message at the time of the follow, while others are sent.
        let firsts = [Some(0), Some(BEFORE), None];
        let following = join_all(clients.iter().zip(terms.iter().cycle()).map(|(client, terms)| {
            let mut terms = terms.clone();
            terms["group"] = json!("room-1");
            client.stream("Follow", json!([terms]))
        }));
        let sending = async {
            for number in BEFORE..ALL {
                send(&back_ends[usize::from(number % 2 == 0)], number).await?;
            }
            let path = "/groups/room-1/history/:finish";
            anyhow::Ok(back_ends[1].status(Method::POST, path).await?)
        };
        let (followed, finished) = tokio::join!(following, sending);
        assert_eq!(finished?, 204);
        for ((followed, first), client) in followed.into_iter().zip(firsts.into_iter().cycle()).zip(&clients) {
            let followed = followed?;
            let first = first.or(numbers(&followed).first().copied().flatten()).context("an item")?;
            assert!(first == 0 || first >= BEFORE - 1, "{first}");
            let expected: Vec<_> = (first..ALL).map(Some).collect();
            assert_eq!((numbers(&followed), &followed.error), (expected, &None), "{:?}", client.kind());
            assert!(followed.items.iter().all(|item| item["target"] == "Said" && item["position"].is_string()));
        }
        let page = back_ends[0].ask(Method::GET, "/groups/room-1/history?last=3", &Value::Null).await?.json()?;
        assert_eq!((&page["items"][0]["arguments"], &page["finished"]), (&json!([ALL - 3]), &json!(true)), "{page}");
        assert_eq!(back_ends[1].status(Method::DELETE, "/groups/room-1/history").await?, 204);
        Ok(())
    });
}

/// Starts a page at a node. The page follows a group.
async fn page(fixture: &Fixture, node: &Proxy, group: &str) -> Result<Process> {
    let token = signed(ACCESS_KEY, &json!({ "nameid": "ann", "trunkline.follow": group }))?;
    let mut command = Command::new("node");
    command.arg(format!("{CLIENTS_FOLDER}/js/follow.mjs")).args([&node.url("/chat"), &token, group]);
    let mut page = Process::start(fixture, &format!("page of {group}"), command)?;
    page.wait_for_line("following").await?;
    Ok(page)
}

#[test]
fn a_page_that_loses_its_connection_shows_each_message_once_and_in_order() {
    run_test(async |fixture| {
        let nodes = nodes(fixture).await?;
        let back_end = BackEnd::trusted(nodes[0].address(), "chat", ACCESS_KEY)?;
        let mut page = page(fixture, &nodes[1], "room-1").await?;
        for number in 0..300 {
            send(&back_end, number).await?;
        }
        page.wait_for_lines("shown ", 300).await?;
        assert_eq!(page.lines_after("shown "), (0..300).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(page.lines_after("reset ").is_empty());
        Ok(())
    });
}

/// Sends numbers to a group until `end`, each to any node until a node accepts it. Returns their number.
async fn send_all(addresses: &[String], group: &str, end: watch::Receiver<bool>) -> Result<u64> {
    let (mut number, mut node) = (0, 0);
    while !*end.borrow() {
        let body = json!({ "target": "Said", "arguments": [number] }).to_string();
        let id = format!("{group}-{number}");
        let back_end = BackEnd::trusted(addresses.get(node).context("a node")?, "chat", ACCESS_KEY)?;
        let headers = [("authorization", back_end.authorization()), ("idempotency-key", &id)];
        let path = back_end.path(&format!("/groups/{group}/:send"));
        let answer = exchange(&addresses[node], Method::POST, &path, &headers, body.into()).await;
        match answer.as_ref().map_or(503, |answer| answer.status.as_u16()) {
            202 => number += 1,
            503 => sleep(Duration::from_millis(20)).await, // sleep: a client's interval between attempts
            _ => bail!("{answer:?}"),
        }
        node = (node + 1) % addresses.len();
    }
    Ok(number)
}

#[test]
fn kills_of_nodes_and_servers_lose_double_and_reorder_nothing() {
    run_test(async |fixture| {
        let mut servers = Nats::cluster(fixture).await?;
        let mut nodes = nodes_with(fixture, 3, &["--nats", &Nats::urls(&servers)]).await?;
        let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_owned()).collect();
        let (groups, (end, ended)) = (["room-1", "room-2", "room-3"], watch::channel(false));
        let mut pages = Vec::new();
        for (node, group) in nodes.iter().zip(groups) {
            pages.push(page(fixture, node, group).await?);
        }
        let sending = join_all(groups.map(|group| send_all(&addresses, group, ended.clone())));
        let killing = async {
            for round in 0..if is_full() { ROUNDS_FULL } else { ROUNDS } {
                let shown = pages[round % 3].lines_after("shown ").len();
                if round % 2 == 0 {
                    nodes[round % 3].process.kill().await?;
                    nodes[round % 3].start_again(fixture).await?;
                } else {
                    servers[round % 3].process.kill().await?;
                    servers[round % 3].start_again(fixture).await?;
                }
                pages[round % 3].wait_for_lines("shown ", shown + 50).await?;
            }
            end.send_replace(true);
            anyhow::Ok(())
        };
        let (sent, killed) = tokio::join!(sending, killing);
        killed?;
        let sent = sent.into_iter().collect::<Result<Vec<_>>>()?;
        for (page, sent) in pages.iter_mut().zip(&sent) {
            page.wait_for_lines("shown ", usize::try_from(*sent)?).await?;
            let expected: Vec<_> = (0..*sent).map(|number| number.to_string()).collect();
            assert_eq!(page.lines_after("shown "), expected);
            assert_eq!(page.lines_after("reset "), [""; 0]);
        }
        // All at once.
        for (node, server) in nodes.iter_mut().zip(&mut servers) {
            node.process.kill().await?;
            server.process.kill().await?;
        }
        for server in &mut servers {
            server.start_again(fixture).await?;
        }
        for ((node, group), sent) in nodes.iter_mut().zip(groups).zip(sent) {
            node.start_again(fixture).await?;
            let back_end = BackEnd::trusted(node.address(), "chat", ACCESS_KEY)?;
            let path = format!("/groups/{group}/history?last=1");
            let page = back_end.ask(Method::GET, &path, &Value::Null).await?.json()?;
            assert_eq!(page["items"][0]["arguments"], json!([sent - 1]), "{page}");
            let position = page["position"].as_str().context("a position")?;
            assert!(position.ends_with(&format!("-{sent}")), "{position} {sent}");
        }
        Ok(())
    });
}

#[test]
fn an_event_source_and_curl_get_each_message_once_at_any_node() {
    run_test(async |fixture| {
        let nats = Nats::alone(fixture).await?;
        let mut nodes = nodes_with(fixture, 2, &["--nats", &format!("nats://{}", nats.address())]).await?;
        let back_end = BackEnd::trusted(nodes[0].address(), "chat", ACCESS_KEY)?;
        let token = signed(ACCESS_KEY, &json!({ "nameid": "ann", "trunkline.follow": "room-1" }))?;
        let path = format!("/chat/history?group=room-1&after=0&access_token={token}");
        let mut command = Command::new("node");
        command.arg(format!("{CLIENTS_FOLDER}/js/event_source.mjs")).arg(nodes[1].url(&path));
        let mut source = Process::start(fixture, "event source", command)?;
        let mut command = Command::new("curl");
        command.args(["-sN", &nodes[0].url(&path)]);
        let mut curl = Process::start(fixture, "curl", command)?;
        for number in 0..ALL {
            if number == BEFORE {
                source.wait_for_line("shown 5").await?;
                nodes[1].process.kill().await?;
                nodes[1].start_again(fixture).await?;
            }
            send(&back_end, number).await?;
        }
        assert_eq!(back_end.status(Method::POST, "/groups/room-1/history/:finish").await?, 204);
        source.wait_for_line("closed").await?;
        let numbers: Vec<_> = (0..ALL).map(|number| number.to_string()).collect();
        assert_eq!(source.lines_after("shown "), numbers);
        assert_eq!(source.lines_after("reset "), [""; 0]);
        assert!(curl.ended().await?.success());
        let got = curl
            .lines_after("data: ")
            .iter()
            .map(|data| serde_json::from_str(data))
            .collect::<Result<Vec<Value>, _>>()?;
        let got: Vec<_> = got.iter().filter_map(|item| item["arguments"][0].as_u64()).collect();
        assert_eq!(got, (0..ALL).collect::<Vec<_>>());
        Ok(())
    });
}
