//! Records of groups: official clients at two nodes follow what back ends send through both.

use anyhow::{Context, Result};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::{Agents, CLIENTS_FOLDER, Kind, Streamed};
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet, Proxy};
use trunkline_tests::harness::process::Process;
use trunkline_tests::harness::scenario::{Fixture, run_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token::signed;

/// Messages sent before the clients follow, and in all.
const BEFORE: u64 = 20;
const ALL: u64 = 500;

/// Starts two nodes with recorded groups. The webhook of their hub answers nothing.
async fn nodes(fixture: &Fixture) -> Result<Vec<Proxy>> {
    let file = fixture.folder().join("rules.toml");
    std::fs::write(&file, "[[history]]\nhub = \"chat\"\ngroups = \"room-*\"\n")?;
    let (rules, webhook) = (file.to_str().context("a path in UTF-8")?, free_address()?);
    let webhook = format!("chat=http://{webhook}/{{event}}");
    let admins = [free_address()?, free_address()?];
    let peers = admins.clone().map(|admin| format!("http://{admin}"));
    let mut nodes = Vec::new();
    for admin in &admins {
        let arguments = ["--upstream-webhook", &webhook, "--rest", "--config", rules];
        let arguments = [&arguments[..], &["--peers", &peers[0], "--peers", &peers[1]]].concat();
        nodes.push(Fleet::new(fixture).proxy_of(&free_address()?, admin, &[], &arguments)?);
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

#[test]
fn a_page_that_loses_its_connection_shows_each_message_once_and_in_order() {
    run_test(async |fixture| {
        let nodes = nodes(fixture).await?;
        let back_end = BackEnd::trusted(nodes[0].address(), "chat", ACCESS_KEY)?;
        let token = signed(ACCESS_KEY, &json!({ "nameid": "ann", "trunkline.follow": "room-1" }))?;
        let mut command = Command::new("node");
        command.arg(format!("{CLIENTS_FOLDER}/js/follow.mjs")).args([&nodes[1].url("/chat"), &token, "room-1"]);
        let mut page = Process::start(fixture, "page", command)?;
        page.wait_for_line("following").await?;
        for number in 0..300 {
            send(&back_end, number).await?;
        }
        page.wait_for_lines("shown ", 300).await?;
        assert_eq!(page.lines_after("shown "), (0..300).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(page.lines_after("reset ").is_empty());
        Ok(())
    });
}
