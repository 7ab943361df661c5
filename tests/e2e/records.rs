//! Records of groups: official clients at two nodes follow what back ends send through both.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::sleep;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::browser::Browser;
use trunkline_tests::harness::client::{Agents, CLIENTS_FOLDER, Kind, Streamed};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::http_client::{exchange, get};
use trunkline_tests::harness::nats::Nats;
use trunkline_tests::harness::process::Process;
use trunkline_tests::harness::scenario::{Fixture, is_full, profile_folder, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token::signed;
use trunkline_tests::harness::tools::run;

const ADMIN_TOKEN: &str = "aKx7Qm2Zt9Vb4Nc8Wd1Re6Yf3";

/// Hub of app servers in Rust.
const RUST: &str = "rust";

/// Messages sent before the clients follow, and in all.
const BEFORE: u64 = 20;
const ALL: u64 = 500;

/// Kills of nodes, NATS servers and app servers in turn.
const ROUNDS: usize = 6;
const ROUNDS_FULL: usize = 120;

/// Followers that come and go meanwhile.
const FOLLOWERS: usize = 40;
const FOLLOWERS_FULL: usize = 500;

/// Starts two nodes with recorded groups. The webhook of their hub answers nothing.
async fn nodes(fixture: &Fixture) -> Result<Vec<Proxy>> {
    nodes_with(fixture, 2, &[], &[]).await
}

/// Starts nodes with these arguments as well.
async fn nodes_with(fixture: &Fixture, count: usize, apps: &[&str], more: &[&str]) -> Result<Vec<Proxy>> {
    let file = fixture.folder().join("rules.toml");
    std::fs::write(&file, "[[history]]\nhub = \"chat\"\ngroups = \"room-*\"\nmessages = 100000\n")?;
    let (rules, webhook) = (file.to_str().context("a path in UTF-8")?, free_address()?);
    let webhook = format!("chat=http://{webhook}/{{event}}");
    let admins = (0..count).map(|_| free_address()).collect::<Result<Vec<_>>>()?;
    let peers = admins.iter().map(|admin| format!("http://{admin}")).collect::<Vec<_>>().join(",");
    let mut nodes = Vec::new();
    for admin in &admins {
        let arguments = ["--upstream-webhook", &webhook, "--rest", "--config", rules, "--peers", &peers];
        nodes.push(Fleet::new(fixture).proxy_of(&free_address()?, admin, apps, &[&arguments[..], more].concat())?);
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
    let answer = back_end.send("/groups/room-1/:send", "Received", &json!(number)).await?;
    Ok(answer["position"].as_str().context("a recorded message has a position")?.to_owned())
}

#[test]
fn official_clients_follow_a_group_from_any_position_at_any_node() {
    run_test(async |fixture| {
        let nodes = nodes(fixture).await?;
        let back_ends: Vec<_> =
            nodes.iter().map(|node| BackEnd::trusted(node.address(), "chat", ACCESS_KEY)).collect::<Result<_>>()?;
        let (agents, mut clients) = (Agents::new(fixture), Vec::new());
        let kinds = Kind::ALL.into_iter().cycle().take(8).chain(Kind::others());
        for (node, kind) in nodes.iter().flat_map(|node| [node; 4]).chain(nodes.iter().cycle()).zip(kinds) {
            let client = agents.client(kind, &node.url("/chat")).subscribe(&["Received"]).open().await?;
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
            assert!(followed.items.iter().all(|item| item["target"] == "Received" && item["position"].is_string()));
        }
        let page = back_ends[0].ask(Method::GET, "/groups/room-1/history?last=3", &Value::Null).await?.json()?;
        assert_eq!((&page["items"][0]["arguments"], &page["finished"]), (&json!([ALL - 3]), &json!(true)), "{page}");
        assert_eq!(back_ends[1].status(Method::DELETE, "/groups/room-1/history").await?, 204);
        Ok(())
    });
}

/// Starts a page at a node. The page follows a group of a hub.
async fn page(fixture: &Fixture, node: &Proxy, (hub, group): (&str, &str)) -> Result<Process> {
    let token = signed(ACCESS_KEY, &json!({ "nameid": "ann", "trunkline.follow": group }))?;
    let mut command = Command::new("node");
    command.arg(format!("{CLIENTS_FOLDER}/js/follow.mjs")).args([&node.url(&format!("/{hub}")), &token, group]);
    let mut page = Process::start(fixture, &format!("page of {hub} {group}"), command)?;
    page.wait_for_line("following").await?;
    Ok(page)
}

#[test]
fn a_page_that_loses_its_connection_shows_each_message_once_and_in_order() {
    run_test(async |fixture| {
        let nodes = nodes(fixture).await?;
        let back_end = BackEnd::trusted(nodes[0].address(), "chat", ACCESS_KEY)?;
        let mut page = page(fixture, &nodes[1], ("chat", "room-1")).await?;
        for number in 0..300 {
            send(&back_end, number).await?;
        }
        page.wait_for_lines("shown ", 300).await?;
        assert_eq!(page.lines_after("shown "), (0..300).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(page.lines_after("reset ").is_empty());
        Ok(())
    });
}

/// Sends numbers to a group until `end`, each to any address until one accepts it. Returns their number.
async fn send_all(addresses: &[String], (hub, group): (&str, &str), end: watch::Receiver<bool>) -> Result<u64> {
    let (mut number, mut attempts) = (0, 0);
    while !*end.borrow() {
        let address = addresses.get(attempts % addresses.len()).context("an address")?;
        attempts += 1;
        let body = json!({ "target": "Said", "arguments": [number] }).to_string();
        let id = format!("{group}-{number}");
        let back_end = BackEnd::trusted(address, hub, ACCESS_KEY)?;
        let headers = [("authorization", back_end.authorization()), ("idempotency-key", &id)];
        let path = match hub {
            RUST => format!("/say/{group}/{number}"),
            _ => back_end.path(&format!("/groups/{group}/:send")),
        };
        let answer = exchange(address, Method::POST, &path, &headers, body.into()).await;
        match answer.as_ref().map_or(503, |answer| answer.status.as_u16()) {
            200 | 202 => number += 1,
            503 => sleep(Duration::from_millis(20)).await, // sleep: a client's interval between attempts
            _ => bail!("{answer:?}"),
        }
    }
    Ok(number)
}

/// Starts followers that come and go, of these groups at all nodes.
async fn followers(fixture: &Fixture, nodes: &[Proxy], groups: &[(&str, &str)]) -> Result<Process> {
    let mut terms = vec![json!(if is_full() { FOLLOWERS_FULL } else { FOLLOWERS })];
    for (hub, group) in groups {
        let token = signed(ACCESS_KEY, &json!({ "nameid": "eve", "trunkline.follow": group }))?;
        let urls: Vec<_> = nodes.iter().map(|node| node.url(&format!("/{hub}"))).collect();
        terms.push(json!({ "urls": urls, "token": token, "group": group }));
    }
    let mut command = Command::new("node");
    command.arg(format!("{CLIENTS_FOLDER}/js/followers.mjs")).arg(json!(terms).to_string());
    let mut followers = Process::start(fixture, "followers", command)?;
    followers.wait_for_line("following").await?;
    Ok(followers)
}

/// Kills a node, a NATS server or an app server, in turn, and starts it again.
async fn kill_one(
    fixture: &Fixture,
    round: usize,
    nodes: &mut [Proxy],
    servers: &mut [Nats],
    apps: &mut [AppServer],
) -> Result<()> {
    let (turn, kind) = (round / 3, round % 3);
    match kind {
        0 => {
            nodes[turn % 3].process.kill().await?;
            nodes[turn % 3].start_again(fixture).await
        }
        1 => {
            servers[turn % 3].process.kill().await?;
            servers[turn % 3].start_again(fixture).await
        }
        _ => {
            apps[turn % 2].process.kill().await?;
            apps[turn % 2].start_again(fixture).await
        }
    }
}

#[test]
fn kills_of_nodes_and_servers_lose_double_and_reorder_nothing() {
    run_test(async |fixture| {
        let mut servers = Nats::cluster(fixture).await?;
        let fleet = Fleet::new(fixture);
        let mut apps = [fleet.app(App::Records).await?, fleet.app(App::Records).await?];
        let of_apps: Vec<_> = apps.iter().map(|app| app.address().to_owned()).collect();
        let upstreams: Vec<_> = of_apps.iter().map(String::as_str).collect();
        let mut nodes = nodes_with(fixture, 3, &upstreams, &["--nats", &Nats::urls(&servers)]).await?;
        let of_nodes: Vec<_> = nodes.iter().map(|node| node.address().to_owned()).collect();
        let groups = [("chat", "room-1"), ("chat", "room-2"), ("chat", "room-3"), (RUST, "room-1")];
        let (mut pages, (end, ended)) = (Vec::new(), watch::channel(false));
        for (node, group) in nodes.iter().cycle().zip(groups) {
            pages.push(page(fixture, node, group).await?);
        }
        let mut followers = followers(fixture, &nodes, &groups).await?;
        let sending = join_all(groups.map(|group| {
            let addresses = if group.0 == RUST { &of_apps } else { &of_nodes };
            send_all(addresses, group, ended.clone())
        }));
        let killing = async {
            for round in 0..if is_full() { ROUNDS_FULL } else { ROUNDS } {
                let shown: Vec<_> = pages.iter().map(|page| page.lines_after("shown ").len()).collect();
                kill_one(fixture, round, &mut nodes, &mut servers, &mut apps).await?;
                for (page, shown) in pages.iter_mut().zip(shown) {
                    page.wait_for_lines("shown ", shown + 20).await?;
                }
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
        for (hub, group) in groups {
            let back_end = BackEnd::trusted(nodes[0].address(), hub, ACCESS_KEY)?;
            assert_eq!(back_end.status(Method::POST, &format!("/groups/{group}/history/:finish")).await?, 204);
        }
        followers.wait_for_line("done ").await?;
        assert_eq!(followers.lines_after("violation "), [""; 0]);
        // All at once.
        for (node, server) in nodes.iter_mut().zip(&mut servers) {
            node.process.kill().await?;
            server.process.kill().await?;
        }
        for server in &mut servers {
            server.start_again(fixture).await?;
        }
        for node in &mut nodes {
            node.start_again(fixture).await?;
        }
        for (((hub, group), sent), node) in groups.into_iter().zip(sent).zip(nodes.iter().cycle()) {
            let back_end = BackEnd::trusted(node.address(), hub, ACCESS_KEY)?;
            let path = format!("/groups/{group}/history?last=1");
            let page = until(async || {
                let page = back_end.ask(Method::GET, &path, &Value::Null).await?;
                // The servers elect a leader.
                Ok((page.status != 503).then_some(page))
            });
            let page = page.await?.json()?;
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
        let mut nodes = nodes_with(fixture, 2, &[], &["--nats", &format!("nats://{}", nats.address())]).await?;
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

#[test]
fn operators_see_and_delete_records_on_the_page_and_by_the_command() {
    run_heavy_test(async |fixture| {
        let nodes = nodes_with(fixture, 2, &[], &["--admin-token", ADMIN_TOKEN]).await?;
        let back_end = BackEnd::trusted(nodes[0].address(), "chat", ACCESS_KEY)?;
        let mut follower = page(fixture, &nodes[1], ("chat", "room-1")).await?;
        for number in 0..3 {
            send(&back_end, number).await?;
        }
        follower.wait_for_lines("shown ", 3).await?;
        let browser = Browser::start(fixture)?;
        let observer = browser.open("records", &format!("http://{}/", nodes[1].admin())).await?;
        observer.click("log-in").await?;
        observer.fill("login-token", ADMIN_TOKEN).await?;
        observer.click("login-submit").await?;
        observer.see("access", "may act").await?;
        observer.click("tab-records").await?;
        observer.see("records", "room-1").await?;
        observer.see("records-note", "1 recorded, 1 shown").await?;
        observer.click_in("records", "tbody td.acts button:last-child").await?;
        observer.see("acting-effect", "Followers receive a reset").await?;
        observer.click("acting-submit").await?;
        observer.see("acting-answer", "Record deleted.").await?;
        observer.click("acting-cancel").await?;
        follower.wait_for_lines("reset ", 1).await?;
        assert_eq!(follower.lines_after("reset "), ["deleted"]);
        observer.see("records-note", "0 recorded, 1 shown").await?;
        send(&back_end, 3).await?;
        let mut command = Command::new(profile_folder()?.join("trunkline"));
        command.args(["records", "--hub", "chat", "--group", "room-1", "--finish", "--admin", nodes[0].admin()]);
        let done = run(command.env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN)).await?;
        assert!(done.contains("finished at position"), "{done}");
        let log = [nodes[0].process.log(), nodes[1].process.log()].concat();
        for act in ["act=delete_record outcome=done", "act=finish_record outcome=done"] {
            assert!(log.contains(act), "{act}");
        }
        browser.end().await
    });
}

#[test]
fn a_full_store_refuses_a_message_everywhere_and_says_why_until_there_is_room() {
    run_test(async |fixture| {
        let address = free_address()?;
        let _nats = Nats::start(fixture, &address, "small", &[], "max_file_store: 4MB").await?;
        let nodes = nodes_with(fixture, 2, &[], &["--nats", &format!("nats://{address}")]).await?;
        let back_end = BackEnd::trusted(nodes[0].address(), "chat", ACCESS_KEY)?;
        let mut follower = page(fixture, &nodes[1], ("chat", "room-1")).await?;
        let large = |number: u64| json!({ "target": "Said", "arguments": [number, "x".repeat(300_000)] });
        let mut accepted = 0;
        let refused = loop {
            let answer = back_end.ask(Method::POST, "/groups/room-1/:send", &large(accepted)).await?;
            if answer.status != 202 {
                break answer;
            }
            accepted += 1;
            assert!(accepted < 100, "the store has a limit");
        };
        assert_eq!(refused.status, 503, "{}", refused.body);
        assert!(refused.body.contains("it is full") && refused.body.contains("max_file_store"), "{}", refused.body);
        until(async || {
            let ready = get(nodes[0].admin(), "/readyz").await?;
            assert_eq!(ready.status, 200, "{}", ready.body);
            Ok(ready.body.contains("records-refused").then_some(()))
        })
        .await?;
        assert_eq!(back_end.status(Method::DELETE, "/groups/room-1/history").await?, 204);
        follower.wait_for_lines("reset ", 1).await?;
        let shown = follower.lines_after("shown ");
        assert_eq!(
            shown,
            (0..accepted).map(|number| number.to_string()).collect::<Vec<_>>(),
            "what was refused is not shown"
        );
        let again = until(async || {
            let answer = back_end.ask(Method::POST, "/groups/room-1/:send", &large(accepted)).await?;
            Ok((answer.status == 202).then_some(()))
        });
        again.await?;
        follower.wait_for_lines("shown ", shown.len() + 1).await
    });
}

/// Deletes the stream of the records, as an operator of the server can.
async fn delete_stream(nats: &Nats) -> Result<()> {
    let mut socket = BufReader::new(TcpStream::connect(nats.address()).await?);
    let request = "CONNECT {}\r\nPUB $JS.API.STREAM.DELETE.trunkline_history 0\r\n\r\nPING\r\n";
    socket.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        ensure!(socket.read_line(&mut line).await? > 0, "the server has closed the connection");
    }
    Ok(())
}

#[test]
fn a_deleted_stream_is_made_again_and_followers_get_a_reset() {
    run_test(async |fixture| {
        let nats = Nats::alone(fixture).await?;
        let url = format!("nats://{}", nats.address());
        let nodes = nodes_with(fixture, 2, &[], &["--nats", &url]).await?;
        let back_end = BackEnd::trusted(nodes[0].address(), "chat", ACCESS_KEY)?;
        let mut follower = page(fixture, &nodes[1], ("chat", "room-1")).await?;
        send(&back_end, 0).await?;
        follower.wait_for_lines("shown ", 1).await?;
        delete_stream(&nats).await?;
        let again = json!({ "target": "Said", "arguments": [1] });
        until(async || {
            let answer = back_end.ask(Method::POST, "/groups/room-1/:send", &again).await?;
            ensure!(matches!(answer.status.as_u16(), 202 | 503), "{}", answer.body);
            Ok((answer.status == 202).then_some(()))
        })
        .await?;
        follower.wait_for_line("shown 1").await?;
        assert_eq!(follower.lines_after("reset "), ["lost"]);
        Ok(())
    });
}
