//! Idle clients are free: an app server has the connections of its pool, and none per client.

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use trunkline_tests::harness::fleet::{App, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{is_full, run_heavy_test, until};

/// Maximum number of concurrent handshakes, because a listener's queue is limited.
const OPENING: usize = 64;
const FRAMES: &str = "trunkline_link_frames_total";
const BYTES: &str = "trunkline_link_bytes_total";

async fn join_many(proxy: &Proxy, count: usize) -> Result<Vec<RawClient>> {
    let mut clients = Vec::with_capacity(count);
    let mut opening = FuturesUnordered::new();
    for _ in 0..count {
        if opening.len() == OPENING {
            clients.extend(opening.next().await.transpose()?);
        }
        opening.push(RawClient::join(proxy.address(), "/bench"));
    }
    while let Some(client) = opening.next().await {
        clients.push(client?);
    }
    Ok(clients)
}

/// Bytes on links apart from pings, counted by both ends.
fn messages(metrics: &Metrics) -> [f64; 2] {
    [FRAMES, BYTES].map(|name| metrics.sum(name, &[("kind", "message")]))
}

/// Waits until each link may have pinged twice in each direction.
async fn pings_pass(proxy: &Proxy, from: &Metrics) -> Result<()> {
    until(async || {
        let now = proxy.metrics().await?;
        let enough = ["up", "down"].iter().all(|direction| {
            let labels = [("direction", *direction), ("kind", "ping")];
            now.sum(FRAMES, &labels) - from.sum(FRAMES, &labels) >= 2.0 * POOL_SIZE as f64
        });
        Ok(enough.then_some(()))
    })
    .await
}

#[test]
fn two_thousand_idle_clients_cost_the_app_server_no_connection_and_no_message() {
    run_heavy_test(async |fixture| {
        let count = if is_full() { 8_000 } else { 2_000 };
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxies = fleet.two_proxies(&app).await?;
        until(async || Ok((app.established()? == proxies.len() * POOL_SIZE).then_some(()))).await?;

        let mut clients = Vec::new();
        for proxy in &proxies {
            clients.extend(join_many(proxy, count / proxies.len()).await?);
        }
        assert_eq!(app.established()?, proxies.len() * POOL_SIZE);

        for proxy in &proxies {
            let before = proxy.metrics().await?;
            assert!(messages(&before).iter().all(|value| *value >= (count / proxies.len()) as f64), "each was opened");
            pings_pass(proxy, &before).await?;
            assert_eq!(messages(&proxy.metrics().await?), messages(&before), "only pings move");
        }
        assert_eq!(app.established()?, proxies.len() * POOL_SIZE);

        // All clients are still connected.
        for client in [0, count - 1] {
            clients[client].send_text("{\"type\":1,\"target\":\"Broadcast\",\"arguments\":[\"all\"]}\u{1e}").await?;
            for client in &mut clients {
                assert_eq!(client.next_record().await?["arguments"][0], "all");
            }
        }
        Ok(())
    });
}
