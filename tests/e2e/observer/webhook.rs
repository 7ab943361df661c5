//! A webhook on the page: the state of its back end, and no links.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use axum::Router;
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;
use trunkline_tests::harness::browser::Browser;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::Fleet;
use trunkline_tests::harness::scenario::run_heavy_test;
use trunkline_tests::harness::sockets::free_address;

/// Starts a back end that answers 204, or 500 while the flag is set.
async fn back_end(fails: Arc<AtomicBool>) -> Result<String> {
    let answer = move || {
        let status = match fails.load(Ordering::Relaxed) {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::NO_CONTENT,
        };
        std::future::ready(status)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
    Ok(address)
}

#[test]
fn a_webhook_is_shown_by_the_state_of_its_back_end() {
    run_heavy_test(async |fixture| {
        let fails = Arc::<AtomicBool>::default();
        let webhook = format!("chat=http://{}/{{event}}", back_end(fails.clone()).await?);
        let arguments = ["--upstream-webhook", &webhook];
        let mut proxy = Fleet::new(fixture).proxy_of(&free_address()?, &free_address()?, &[], &arguments)?;
        proxy.ready().await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JS[0], &proxy.url("/chat")).open().await?;
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", proxy.admin())).await?;
        page.see("sum-webhooks", "1 of 1").await?;
        page.see_count("sum", "#sum-apps, #sum-links", 0).await?;
        page.see("graph", "Webhooks").await?;
        page.see("graph", "answers, ").await?;
        page.click("tab-webhooks").await?;
        page.see_count("webhooks", "tbody tr[data-state=open]", 1).await?;
        page.see("webhooks", "answers").await?;
        fails.store(true, Ordering::Relaxed);
        client.invoke_failing("Say", json!([])).await?;
        page.see("webhooks", "fails for ").await?;
        page.see("webhooks", "messages/\"Say\": ").await?;
        page.see("graph", "fails for ").await?;
        page.see("sum-webhooks", "0 of 1").await?;
        fails.store(false, Ordering::Relaxed);
        // Five valid answers in a row end the trouble.
        for _ in 0..5 {
            client.invoke("Say", json!([])).await?;
        }
        page.see("sum-webhooks", "1 of 1").await?;
        page.click("tab-links").await?;
        page.see("panel", "Nothing here.").await?;
        browser.end().await
    });
}
