//! Acts on the page, each where its subject is shown, and the search for connections that have ended.

use anyhow::{Context, Result};
use serde_json::json;
use trunkline_tests::harness::browser::{Browser, Page};
use trunkline_tests::harness::client::Agents;
use trunkline_tests::harness::fleet::AppServer;
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test};

use super::{ADMIN_TOKEN, NODES, ObserverScene, ask_api, log_in, post};

/// Opens the page of the first node, as an operator.
async fn acting(fixture: &Fixture, scene: &ObserverScene) -> Result<(Browser, Page)> {
    let browser = Browser::start(fixture)?;
    let page = browser.open("observer", &format!("http://{}/", scene.proxies[0].admin())).await?;
    log_in(&page).await?;
    Ok((browser, page))
}

#[test]
fn a_connection_that_has_ended_is_found_by_its_id_with_cause_and_app_server() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut client = scene.client(&agents, 4).await?;
        let id = client.connection_id()?.to_owned();
        let token = format!("Bearer {ADMIN_TOKEN}");
        let path = format!("/api/clients/{id}/close");
        let body = json!({ "reason": "it was only a test" }).to_string();
        let answer = post(scene.proxies[2].admin(), &path, &[("authorization", &token)], &body).await?;
        assert_eq!(answer.status, 200);
        client.closed().await?;
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", scene.proxies[0].admin())).await?;
        page.see_count("nodes", "tbody tr", NODES.len()).await?;
        page.fill("find-text", "nobody-of-this-name").await?;
        page.press("Enter").await?;
        page.see("find-note", "no connection with this id ended").await?;
        page.fill("find-text", &id).await?;
        page.press("Enter").await?;
        page.see("client-note", "an operator closed the connection").await?;
        page.see("client-note", "it was only a test").await?;
        page.see("client-fact-cause", "operator").await?;
        page.see("client-fact-user", "user-4").await?;
        let addresses: Vec<_> = scene.apps.iter().map(AppServer::address).collect();
        let shown = page.text("client-fact-app").await?;
        assert!(addresses.iter().any(|address| shown.contains(address.trim_start_matches("http://"))), "{shown}");
        browser.end().await
    });
}

#[test]
fn a_user_is_logged_out_where_users_are_listed() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut client = scene.client(&agents, 4).await?;
        let (browser, page) = acting(fixture, &scene).await?;
        page.click("tab-users").await?;
        page.see("users", "user-4").await?;
        page.click_in("users", "tbody td.acts button:last-child").await?;
        page.see("acting-effect", "tokens of the user user-4").await?;
        page.see("acting-effect", "Open connections stay").await?;
        page.click("acting-close").await?;
        page.see("acting-effect", "All connections of this user are closed").await?;
        page.click("acting-submit").await?;
        page.see("acting-answer", "Tokens revoked at 3 nodes, and 1 connection closed.").await?;
        client.closed().await?;
        page.click("acting-cancel").await?;
        browser.end().await
    });
}

#[test]
fn a_client_joins_a_group_and_is_called_alone_from_its_panel() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let (mut client, other) = (scene.client(&agents, 4).await?, scene.client(&agents, 5).await?);
        let (browser, page) = acting(fixture, &scene).await?;
        page.fill("find-text", client.connection_id()?).await?;
        page.press("Enter").await?;
        page.see("client-facts", "user-4").await?;
        page.click("client-groups").await?;
        page.fill("acting-group", "late-joiners").await?;
        page.click("acting-submit").await?;
        page.see("acting-answer", "Joined late-joiners.").await?;
        page.click("acting-cancel").await?;
        page.see("client-fact-groups", "late-joiners").await?;
        page.click("client-announce").await?;
        page.fill("announcing-target", "Message").await?;
        page.fill("announcing-arguments", "[\"for you\"]").await?;
        page.see("announcing-effect", client.connection_id()?).await?;
        page.click("announcing-submit").await?;
        page.see("announcing-answer", "Given to 1 client").await?;
        assert_eq!(client.expect("Message").await?, [json!("for you")]);
        assert_eq!(other.invoke("Echo", json!(["nothing came"])).await?, "nothing came");
        browser.end().await
    });
}

#[test]
fn a_rebalance_names_its_clients_before_they_move() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let client = scene.client(&agents, 1).await?;
        let (browser, page) = acting(fixture, &scene).await?;
        page.see_count("nodes", "tbody tr[data-state=open]", NODES.len()).await?;
        page.click_in("nodes", "tbody tr:nth-child(2) td.acts button").await?;
        page.click("acting-submit").await?;
        page.see("acting-answer", "1 client would leave. Nothing has been done yet.").await?;
        page.see("acting-submit", "Move 1 client").await?;
        let report = ask_api(&scene.proxies[0], "/api/rebalance").await?;
        assert_ne!(report["state"], "running", "{report}");
        assert_eq!(client.invoke("Echo", json!(["still here"])).await?, "still here");
        page.click("acting-cancel").await?;
        let told = ask_api(&scene.proxies[0], &format!("/api/clients/{}", client.connection_id()?)).await?;
        assert_eq!(told["node"].as_str().context("a node")?, NODES[1]);
        browser.end().await
    });
}
