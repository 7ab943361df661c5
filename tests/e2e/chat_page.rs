//! The chat in a browser: two pages on two proxies, as in the demo.

use anyhow::Result;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::browser::{Browser, OFFICIAL_SCRIPT, Page};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test};

async fn open_pages(browser: &Browser, app: &AppServer, proxies: &[Proxy; 2], over: &str) -> Result<[Page; 2]> {
    let url = |proxy: &Proxy| format!("http://{}/?transport={over}&proxy={}", app.address(), proxy.url(""));
    let anna = browser.open("anna", &url(&proxies[0])).await?;
    let ben = browser.open("ben", &url(&proxies[1])).await?;
    for (page, user) in [(&anna, "anna"), (&ben, "ben")] {
        page.see("state", "Connected").await?;
        page.fill("user", user).await?;
    }
    Ok([anna, ben])
}

async fn send_text(page: &Page, message: &str) -> Result<()> {
    page.fill("message", message).await?;
    page.click("send").await
}

/// Opens two pages over each transport. An empty name lets the client library choose.
async fn chat(fixture: &Fixture, arguments: &[&str], transports: &[&str]) -> Result<()> {
    let fleet = Fleet::in_development(fixture);
    let app = fleet.app_with(App::Chat, arguments).await?;
    let proxies = fleet.two_proxies(&app).await?;
    let browser = Browser::start(fixture)?;
    for over in transports {
        let pages = open_pages(&browser, &app, &proxies, over).await?;
        let [anna, ben] = &pages;
        send_text(anna, "hello from the first proxy").await?;
        send_text(ben, "<u>line</u> & <i>more</i> from the second").await?;
        for page in &pages {
            page.see("messages", "hello from the first proxy").await?;
            page.see("messages", "<u>line</u> & <i>more</i> from the second").await?;
            let text = page.text("messages").await?;
            assert_eq!(text.matches("hello from the first proxy").count(), 1, "{text}");
            assert!(text.contains("anna") && text.contains("ben"), "{text}");
            assert_eq!(page.count("messages", "u").await? + page.count("messages", "i").await?, 0, "it stays text");
        }
    }
    browser.end().await
}

#[test]
fn two_pages_on_two_proxies_see_each_others_messages_with_the_official_client() {
    let transports = ["", Transport::ServerSentEvents.name(), Transport::LongPolling.name()];
    run_heavy_test(async |fixture| chat(fixture, &["--client-script", OFFICIAL_SCRIPT], &transports).await);
}

#[test]
fn two_pages_on_two_proxies_see_each_others_messages_with_the_pages_own_client() {
    run_heavy_test(async |fixture| chat(fixture, &[], &[""]).await);
}
