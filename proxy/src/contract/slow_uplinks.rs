//! Clients that send slowly or can't be read for now: who may stay, and for how long one that is closed keeps its place.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use trunkline_protocol::service::*;

use super::app::{App, AppLink};
use super::client::{Client, PING};
use super::stage::{Stage, run, settings};

const SECOND: Duration = Duration::from_secs(1);

/// Connections that have a place at the node, closing ones included.
async fn places(stage: &Stage) -> usize {
    stage.shared.shards()[0].inspect(|state| state.core.connections.everyone().len()).await.unwrap()
}

/// Fills the link by messages of this client, until the node reads it no further.
async fn fill(link: &AppLink, client: &mut Client) {
    link.set_reading(false);
    let message = format!("{{\"type\":1,\"target\":\"{}\"}}\u{1e}", "x".repeat(10_000));
    let flood = async {
        loop {
            client.send(&message).await;
        }
    };
    // Nothing else happens in this second: time passes only when all tasks wait.
    assert!(timeout(SECOND, flood).await.is_err());
}

/// A node whose links are full soon.
async fn stage_with_small_links() -> (Stage, App, AppLink) {
    let mut settings = settings();
    settings.links.outbox_max_bytes = 1024;
    Stage::with(settings, 1).with_chat().await
}

#[test]
fn a_client_whose_link_is_full_is_not_timed_out_while_its_pings_wait_unread() {
    run(async {
        let (stage, _app, mut link) = stage_with_small_links().await;
        let mut pinging = Client::connect(&stage, &mut link, "/chat").await;
        let mut flooding = Client::connect(&stage, &mut link, "/chat").await;
        pinging.send(&format!("{PING}\u{1e}")).await;
        fill(&link, &mut flooding).await;
        for _ in 0..9 {
            pinging.send(&format!("{PING}\u{1e}")).await;
            // sleep: time is paused, and passing it is what the test is about.
            sleep(10 * SECOND).await;
            // The link lives.
            link.send(ServiceMessage::Ping(Ping::default())).await;
        }
        link.set_reading(true);
        pinging.fence(&link).await;
        assert_eq!(places(&stage).await, 2);
    });
}
