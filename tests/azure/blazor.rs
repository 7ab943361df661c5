//! A Blazor Server page in Chromium: its circuit starts at the app server that rendered the page, whichever node it
//! reaches.

use anyhow::{Context, Result};
use trunkline_tests::harness::browser::{Browser, Page};
use trunkline_tests::harness::dotnet::run_heavy_dotnet_test;
use trunkline_tests::harness::scenario::{named, until};

use crate::dial_in::DialIn;
use crate::guest::Host;

#[test]
fn blazor_pages_of_two_app_servers_work_behind_two_nodes() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let dial_ins = [DialIn::open(fixture).await?, DialIn::open_as(fixture, "dial-in-2").await?];
        let host = Host::new(fixture, dotnet);
        let apps = [
            host.app_of(&dial_ins, "one", &[("--blazor", "true")]).await?,
            host.app_of(&dial_ins, "two", &[("--blazor", "true")]).await?,
        ];
        // Blazor adds a third hub, with five server connections per app and node.
        for dial_in in &dial_ins {
            dial_in.linked(2 * 15).await?;
        }
        let browser = Browser::start(fixture)?;
        for round in 0..2 {
            for (app, instance) in apps.iter().zip(["one", "two"]) {
                let page = browser.open(&format!("{instance}-{round}"), &app.url("/blazor")).await?;
                page.see("instance", instance).await?;
                circuit_works(&page).await.with_context(|| format!("circuit of {instance} in round {round}"))?;
                page.see("instance", instance).await?;
            }
        }
        browser.end().await
    });
}

async fn circuit_works(page: &Page) -> Result<()> {
    let clock = page.text("clock").await?;
    let ticks = until(async || Ok((page.text("clock").await? != clock).then_some(())));
    named("the clock".into(), ticks).await?;
    for count in ["1", "2"] {
        page.click("up").await?;
        page.see("n", count).await?;
    }
    // Each key press is a separate event.
    page.click("text").await?;
    for key in ["a", "b", "c"] {
        page.press(key).await?;
    }
    // The mirror shows the text reversed.
    page.see("mirror", "cba").await
}
