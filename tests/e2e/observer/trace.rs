//! `trunkline trace` and the page's trace: calls of official clients, hop by hop, from any node.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::browser::Browser;
use trunkline_tests::harness::client::Agents;
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_heavy_test, until};

use super::{ADMIN_TOKEN, NODES, ObserverScene, PICTURE_SIZE, pictures};

/// Hops of a call at an app server with the SDK, in order.
const HOPS: [&str; 7] = ["link", "waited", "queued", "ran", "answered", "way", "total"];

/// Starts a trace at the first node, and waits until all nodes take part.
async fn trace(fixture: &Fixture, name: &str, scene: &ObserverScene, more: &[&str]) -> Result<Process> {
    let mut command = Command::new(profile_folder()?.join("trunkline"));
    command.args(["trace", "--admin", scene.proxies[0].admin(), "--seconds", "120"]).args(more);
    command.env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN);
    let mut process = Process::start(fixture, name, command)?;
    for node in NODES {
        process.wait_for_log(&format!("node {node} is traced")).await?;
    }
    Ok(process)
}

/// Ends a trace with Ctrl-C. Returns its summary line.
async fn end(process: &mut Process) -> Result<String> {
    process.signal(Signal::Interrupt).await?;
    anyhow::ensure!(process.ended().await?.success(), "{}", process.log());
    Ok(process.log().lines().find(|line| line.starts_with("messages: ")).context("a sum")?.to_owned())
}

#[test]
fn a_call_is_told_with_all_its_hops_in_order_whatever_node_is_asked() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        // One client at the third node, with MessagePack and without a user; one at the second node, with long polling.
        let (ann, ben) = (scene.client(&agents, 5).await?, scene.client(&agents, 4).await?);
        let mut by_method = trace(fixture, "by-method", &scene, &["--method", "echo", "--hub", "/bench"]).await?;
        let mut by_user = trace(fixture, "by-user", &scene, &["--user", "user-4", "--payloads"]).await?;
        let mut as_json = trace(fixture, "as-json", &scene, &["--method", "Echo", "--json"]).await?;
        ann.invoke("Echo", json!(["from ann"])).await?;
        ben.invoke("Echo", json!([{ "text": "from ben", "password": "hush" }])).await?;
        for client in [&ann, &ben] {
            let of_client = format!("{} bench Echo #", client.connection_id()?);
            let line = by_method.wait_for_line(&of_client).await?;
            let hops: Vec<_> = line.split("  ").nth(1).context("hops")?.split(" · ").collect();
            let names: Vec<_> = hops.iter().filter_map(|hop| hop.split(' ').next()).collect();
            assert_eq!(names, HOPS, "{line}");
            assert!(line.contains(" ↑ ") && !line.contains("from"), "{line}");
            let answer = by_method.wait_for_line(&format!("{} bench completion #", client.connection_id()?)).await?;
            assert!(answer.contains(" ↓ ") && answer.contains("written "), "{answer}");
        }
        let line = by_user.wait_for_line("user-4 ").await?;
        assert!(line.contains(NODES[1]) && line.contains("from ben") && line.contains("[redacted]"), "{line}");
        let sum = end(&mut by_method).await?;
        assert!(sum.starts_with("messages: 4 (2 from clients, 2 to clients), connections: 2; slowest hop: "), "{sum}");
        let told = end(&mut by_user).await?;
        assert!(told.contains("connections: 1"), "{told}");
        assert!(!by_user.log().contains(ann.connection_id()?) && !by_user.log().contains("hush"), "{}", by_user.log());
        json_tells_hops(&mut as_json).await
    });
}

/// Checks that scripts can match the hops of a message by its number.
async fn json_tells_hops(process: &mut Process) -> Result<()> {
    let lines = until(async || {
        let lines: Vec<Value> = process
            .lines_after("{")
            .iter()
            .filter_map(|line| serde_json::from_str(&format!("{{{line}")).ok())
            .collect();
        let ended = lines.iter().filter(|line| line["hub"]["ranUs"].is_u64()).count();
        Ok((ended == 2).then_some(lines))
    });
    let lines = lines.await?;
    for hop in lines.iter().filter(|line| line["hub"]["ranUs"].is_u64()) {
        let is_call = |line: &&Value| line["event"] == "message" && line["number"] == hop["number"];
        let call = lines.iter().filter(is_call).find(|line| line["node"] == hop["node"]).context("its message")?;
        assert_eq!((&call["way"], &call["target"], &call["marked"]), (&json!("up"), &json!("Echo"), &json!(true)));
        assert!(call.get("payload").is_none(), "{call}");
    }
    end(process).await.map(drop)
}

#[test]
fn the_page_follows_a_client_from_its_details_and_a_method_from_the_form() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let (client, other) = (scene.client(&agents, 4).await?, scene.client(&agents, 5).await?);
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", scene.proxies[0].admin())).await?;
        page.fill("find-text", client.connection_id()?).await?;
        page.press("Enter").await?;
        // The facts move the buttons when they arrive.
        page.see("client-facts", "user-4").await?;
        page.click("client-trace").await?;
        page.see("trace-note", &format!("At {}", NODES.join(", "))).await?;
        client.invoke("Echo", json!(["hello"])).await?;
        other.invoke("Echo", json!(["of somebody else"])).await?;
        let call = "li[data-way=up][data-target=Echo]";
        page.see_count("trace-messages", &format!("{call} rect.hop-ran"), 1).await?;
        page.see_count("trace-messages", "li[data-kind=completion] rect.hop-written", 1).await?;
        let told = page.text("trace-messages").await?;
        assert!(told.contains("user-4") && !told.contains("hello") && told.contains("queued "), "{told}");
        page.click("trace-start").await?;
        page.see("trace-note", "Stopped.").await?;
        page.click("client-close-panel").await?;
        // Fills in the form without a mouse.
        page.focus_in("trace-form", "#trace-subject").await?;
        for _ in 0..3 {
            page.press("ArrowDown").await?;
        }
        page.fill("trace-value", "Echo").await?;
        page.press("Enter").await?;
        page.see("trace-note", &format!("At {}", NODES.join(", "))).await?;
        // Sequential, because nodes send to the page with different delays.
        for (count, client) in [(1, &client), (2, &other)] {
            client.invoke("Echo", json!(["hello"])).await?;
            page.see_count("trace-messages", &format!("{call} rect.hop-ran"), count).await?;
        }
        let nodes = page.attributes("trace-messages", call, &["data-node"]).await?.concat();
        assert_eq!(nodes, [NODES[2], NODES[1]], "newest first");
        page.picture(&pictures(fixture).join("observer-trace.png"), "light", PICTURE_SIZE).await?;
        browser.end().await
    });
}
