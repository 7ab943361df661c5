//! The page on the screen of a phone: no part of it is wider than the screen.

use trunkline_tests::harness::browser::Browser;
use trunkline_tests::harness::client::Agents;
use trunkline_tests::harness::scenario::run_heavy_test;

use super::{NODES, ObserverScene, pictures};

const PHONE_SIZE: (u32, u32) = (390, 844);

const TABS: [&str; 8] = ["nodes", "links", "hubs", "clients", "groups", "users", "records", "trace"];

#[test]
fn no_part_of_the_page_is_wider_than_a_phone() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for number in 0..6 {
            clients.push(scene.client(&agents, number).await?);
        }
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", scene.proxies[1].admin())).await?;
        page.resize(PHONE_SIZE).await?;
        page.see_count("graph", ".edge[data-client]", clients.len()).await?;
        page.see_count("graph", ".box.node", NODES.len()).await?;
        page.see("sum-up", "/s").await?;
        page.picture(&pictures(fixture).join("observer-phone.png"), "light", PHONE_SIZE).await?;
        for tab in TABS {
            page.click(&format!("tab-{tab}")).await?;
            if tab == "clients" {
                page.see_count("clients", "tbody tr", clients.len()).await?;
            }
            assert_eq!(page.overflow().await?, 0, "{tab}");
            assert_eq!(page.hidden_width("#tabs, .scroll").await?, 0, "{tab}");
        }
        page.fill("find-text", clients[0].connection_id()?).await?;
        page.press("Enter").await?;
        page.see("client-facts", "user-0").await?;
        assert_eq!(page.overflow().await?, 0, "with the panel of a client");
        page.picture(&pictures(fixture).join("observer-phone-client.png"), "dark", PHONE_SIZE).await?;
        page.click("client-close-panel").await?;
        page.click("log-in").await?;
        assert_eq!(page.overflow().await?, 0, "with a dialog");
        browser.end().await
    });
}
