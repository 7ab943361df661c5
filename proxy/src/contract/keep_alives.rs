//! Silence: pings of the node, and clients that are given up.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::manifest::CAUSE_HEADER;

use super::client::{Client, PING, Received};
use super::stage::{Stage, run};

#[test]
fn a_client_that_is_sent_nothing_is_pinged_once_an_interval() {
    run(async {
        let (stage, _app, mut link) = Stage::start().with_chat().await;
        let mut client = Client::connect(&stage, &mut link, "/chat").await;
        let begun = Instant::now();
        for interval in 1..=4 {
            assert_eq!(client.next().await, Received::Text(PING.into()));
            let seconds = begun.elapsed().as_secs();
            assert!((15 * interval - 1..=16 * interval).contains(&seconds), "{interval}: {seconds}");
        }
        link.fence().await;
    });
}

#[test]
fn a_client_that_never_pinged_may_be_silent_and_one_that_did_is_given_up() {
    run(async {
        let (stage, _app, mut link) = Stage::start().with_chat().await;
        let mut quiet = Client::connect(&stage, &mut link, "/chat").await;
        let mut pinging = Client::connect(&stage, &mut link, "/chat").await;
        pinging.send(&format!("{PING}\u{1e}")).await;
        let begun = Instant::now();
        let closed = link.close().await;
        assert_eq!(closed.connection_id, pinging.id);
        let cause =
            closed.headers.iter().find(|(name, _)| name == CAUSE_HEADER).map(|(_, values)| values[0].to_string());
        assert_eq!(cause.as_deref(), Some("keep_alive_timeout"));
        assert!((30..=32).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        // sleep: time is paused, and passing it is what the test is about.
        tokio::time::sleep(Duration::from_secs(120)).await;
        quiet.fence(&link).await;
    });
}

#[test]
fn a_client_that_goes_on_pinging_stays() {
    run(async {
        let (stage, _app, mut link) = Stage::start().with_chat().await;
        let mut client = Client::connect(&stage, &mut link, "/chat").await;
        for _ in 0..10 {
            client.send(&format!("{PING}\u{1e}")).await;
            // sleep: time is paused, and passing it is what the test is about.
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        link.fence().await;
        client.fence(&link).await;
    });
}
