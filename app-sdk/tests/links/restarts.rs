//! Restart of a proxy under its name: its clients are closed at once, each reported once.

use std::collections::BTreeSet;

use trunkline::HubProtocol::Json;

use crate::harness::{App, LinkRequest, ProxyLink, ScriptedClient};

fn second_start(slot: u32) -> LinkRequest {
    LinkRequest { boot: "second boot", ..LinkRequest::of("a", slot) }
}

#[tokio::test]
async fn a_restart_disconnects_the_earlier_connections_only() {
    let mut app = App::start().await;
    let mut old = [ProxyLink::open(&app, "a", 0).await, ProxyLink::open(&app, "a", 1).await];
    let mut other = ProxyLink::open(&app, "b", 0).await;
    for (home, id) in [(0, "c1"), (0, "c2"), (1, "c3")] {
        let client = ScriptedClient { id, protocol: Json };
        old[home].send_all(&[client.opening(""), client.handshake()]).await;
        // Whatever its home link is, its answers come by the lane.
        old[0].data(id).await;
        assert_eq!(app.event().await, format!("connected {id}"));
    }
    let stranger = other.client("stranger", Json).await;
    assert_eq!(app.event().await, "connected stranger");
    // The old links are open still, as those of a machine that lost its power are.
    let mut new = ProxyLink::open_as(&app, second_start(0)).await.0;
    let mut gone = BTreeSet::new();
    for _ in 0..3 {
        gone.insert(app.event().await);
    }
    let of = |id: &str| format!("disconnected {id} The link to the proxy was lost.");
    assert_eq!(gone, BTreeSet::from([of("c1"), of("c2"), of("c3")]));
    for link in &mut old {
        link.closed().await;
    }
    let newcomer = new.client("c4", Json).await;
    assert_eq!(app.event().await, "connected c4");
    assert!(new.call(&newcomer, "Echo", "[1]").await.contains("\"result\":1"));
    assert!(other.call(&stranger, "Echo", "[2]").await.contains("\"result\":2"));
    app.no_event().await;
}

#[tokio::test]
async fn two_proxies_of_one_name_do_not_end_each_other_for_ever() {
    let mut app = App::start().await;
    let mut first = ProxyLink::open(&app, "a", 0).await;
    let mut second = ProxyLink::open_as(&app, second_start(0)).await.0;
    first.closed().await;
    let mut first = ProxyLink::open(&app, "a", 0).await;
    for (link, id) in [(&mut first, "c1"), (&mut second, "c2")] {
        let client = link.client(id, Json).await;
        assert_eq!(app.event().await, format!("connected {id}"));
        assert!(link.call(&client, "Echo", "[1]").await.contains("\"result\":1"));
    }
    app.no_event().await;
}
