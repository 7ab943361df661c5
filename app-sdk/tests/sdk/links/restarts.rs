//! Tests of proxies with the same name: a restarted proxy, whose former clients are closed, and two live ones, which
//! do not interfere.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::interval;
use trunkline::HubProtocol::Json;

use crate::harness::{App, LinkRequest, ProxyLink, ScriptedClient};

/// Maximum silence of a live proxy.
const WINDOW_MS: u64 = 1_500;

/// First session of a slot of a proxy process.
fn start_of(node: &'static str, boot: &'static str, slot: u32) -> LinkRequest {
    LinkRequest { boot, session: Some((1, None, WINDOW_MS)), ..LinkRequest::of(node, slot) }
}

#[tokio::test]
async fn a_restart_disconnects_the_earlier_connections_only() {
    let mut app = App::start().await;
    let mut old = Vec::new();
    for slot in [0, 1] {
        old.push(ProxyLink::open_as(&app, start_of("a", "boot", slot)).await.0);
    }
    let mut other = ProxyLink::open(&app, "b", 0).await;
    for (home, id) in [(0, "c1"), (0, "c2"), (1, "c3")] {
        let client = ScriptedClient { id, protocol: Json };
        old[home].send_all(&[client.opening(""), client.handshake()]).await;
        // Results use the send link, whatever the home link is.
        old[0].data(id).await;
        assert_eq!(app.event().await, format!("connected {id}"));
    }
    let stranger = other.client("stranger", Json).await;
    assert_eq!(app.event().await, "connected stranger");
    // As silent as the earlier process, but not replaced by a new one.
    let mut silent = ProxyLink::open_as(&app, start_of("silent", "boot", 0)).await.0;
    silent.client("c5", Json).await;
    assert_eq!(app.event().await, "connected c5");
    // The old links are still open, as after a power failure of a machine.
    let mut new = ProxyLink::open_as(&app, LinkRequest { boot: "second boot", ..LinkRequest::of("a", 0) }).await.0;
    let mut gone = BTreeSet::new();
    for _ in 0..3 {
        gone.insert(app.event().await);
    }
    let of = |id: &str| format!("disconnected {id} The link to the proxy was lost.");
    assert_eq!(gone, BTreeSet::from([of("c1"), of("c2"), of("c3")]), "before the one that is only silent");
    for link in &mut old {
        link.closed().await;
    }
    assert_eq!(app.event().await, of("c5"));
    let newcomer = new.client("c4", Json).await;
    assert_eq!(app.event().await, "connected c4");
    assert!(new.call(&newcomer, "Echo", "[1]").await.contains("\"result\":1"));
    assert!(other.call(&stranger, "Echo", "[2]").await.contains("\"result\":2"));
    app.no_event().await;
}

#[tokio::test]
async fn two_proxies_of_one_name_do_each_other_no_harm() {
    let mut app = App::start().await;
    let mut first = ProxyLink::open_as(&app, start_of("a", "boot", 0)).await.0;
    let of_first = first.client("c1", Json).await;
    assert_eq!(app.event().await, "connected c1");
    let mut second = ProxyLink::open_as(&app, start_of("a", "second boot", 0)).await.0;
    let of_second = second.client("c2", Json).await;
    assert_eq!(app.event().await, "connected c2");
    // Both send something several times within each window, as proxies do.
    let mut beats = interval(Duration::from_millis(WINDOW_MS / 10));
    for _ in 0..25 {
        beats.tick().await;
        for (link, client) in [(&mut first, &of_first), (&mut second, &of_second)] {
            assert!(link.call(client, "Echo", "[1]").await.contains("\"result\":1"));
        }
    }
    app.no_event().await;
}
