//! The example `canvas` in a browser: two pages on two proxies, while the app server is killed under them.

use anyhow::Result;
use trunkline_tests::harness::browser::{Browser, OFFICIAL_SCRIPT, Page};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::scenario::{Fixture, one_of, run_heavy_test};

/// Draws a line across the canvas at this height.
async fn draw(page: &Page, height: f64) -> Result<()> {
    page.drag("paper", &[(0.2, height), (0.4, height + 0.05), (0.6, height), (0.8, height + 0.05)]).await
}

/// Waits until both pages show this many strokes, and checks that they are equal.
async fn see_strokes(pages: &[Page; 2], count: usize) -> Result<()> {
    let mut all = Vec::new();
    for page in pages {
        page.see_count("ink", "path", count).await?;
        let mut strokes = page.attributes("ink", "path", &["data-id", "d"]).await?;
        strokes.sort();
        all.push(strokes);
    }
    assert_eq!(all.first(), all.last());
    Ok(())
}

/// Kills the app server twice while two pages draw.
async fn draw_and_kill(fixture: &Fixture, more: &[&str]) -> Result<()> {
    let fleet = Fleet::in_development(fixture);
    let history = fixture.folder().join("canvas.jsonl");
    let history = history.to_string_lossy();
    let app = fleet.app_with(App::Canvas, &[&["--supervised", "--history", &history], more].concat()).await?;
    let proxies = fleet.two_proxies(&app).await?;
    let browser = Browser::start(fixture)?;
    // Forwarding other paths to the app also serves the pages.
    let anna = browser.open("anna", &proxies[0].url("/?room=kitchen&name=anna")).await?;
    let ben = browser.open("ben", &proxies[1].url("/?room=kitchen&name=ben")).await?;
    let pages = [anna, ben];
    let [anna, ben] = &pages;
    for page in &pages {
        page.see("state", "Connected").await?;
        page.see_count("people", "li", 2).await?;
    }
    draw(anna, 0.2).await?;
    draw(ben, 0.3).await?;
    see_strokes(&pages, 2).await?;
    for (kills, killer, other) in [(1, anna, ben), (2, ben, anna)] {
        let before = anna.text("server").await?;
        killer.click("kill").await?;
        // One stroke while the app server ends, and one on each page while no app server runs.
        draw(other, 0.4).await?;
        for page in &pages {
            page.see("kills", &kills.to_string()).await?;
            draw(page, 0.5).await?;
        }
        for page in &pages {
            page.see_count("log", ".good", kills).await?;
        }
        see_strokes(&pages, 2 + 3 * kills).await?;
        assert_ne!(anna.text("server").await?, before);
        assert_eq!(anna.text("server").await?, ben.text("server").await?);
    }
    for page in &pages {
        assert_eq!((page.text("lost").await?, page.text("disconnects").await?), ("0".to_owned(), "0".to_owned()));
        page.see_count("people", "li", 2).await?;
        page.see("state", "Connected").await?;
    }
    // A page opened later shows the same strokes.
    let eve = browser.open("eve", &proxies[0].url("/?room=kitchen&name=eve")).await?;
    eve.see_count("ink", "path", 8).await?;
    anna.see_count("people", "li", 3).await?;
    browser.end().await
}

#[test]
fn two_pages_draw_on_while_their_app_server_is_killed_and_lose_nothing() {
    run_heavy_test(async |fixture| {
        // The official client, and the page's own one.
        for script in one_of(&[Some(OFFICIAL_SCRIPT), None]) {
            draw_and_kill(fixture, &script.map_or(vec![], |script| vec!["--client-script", script])).await?;
        }
        Ok(())
    });
}
