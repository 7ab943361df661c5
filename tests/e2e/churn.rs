//! Many short visits leave no state: no connection, no group member, no lost link.

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::json;
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{is_full, run_heavy_test, until};

const CROWD: usize = 200;

/// Connects, joins a group, calls, and disconnects in one of several ways.
async fn visit(proxy: &Proxy, number: usize) -> Result<()> {
    let mut client = RawClient::join(proxy.address(), "/sends").await?;
    client.call("Join", json!([format!("group {}", number % 7)])).await?;
    client.call("ToGroup", json!([format!("group {}", number % 5), "hello"])).await?;
    assert_eq!(client.call("Add", json!([number, 1])).await?["result"], number + 1);
    match number % 3 {
        0 => drop(client),
        1 => drop(client.close().await?),
        _ => {
            client.send_text("{\"type\":7}\u{1e}").await?;
            client.ending().await?;
        }
    }
    Ok(())
}

async fn open_connections(app: &AppServer, proxies: &[Proxy]) -> Result<f64> {
    let mut open = Metrics::of(app.address()).await?.sum("trunkline_app_connections", &[]);
    for proxy in proxies {
        open += proxy.metrics().await?.sum("trunkline_client_connections", &[]);
    }
    Ok(open)
}

#[test]
fn crowds_that_come_and_go_leave_nothing_behind() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let mut witness = RawClient::join(proxies[0].address(), "/sends").await?;
        for round in 0..if is_full() { 50 } else { 5 } {
            let visits = (0..CROWD).map(|number| visit(&proxies[number % 2], number));
            try_join_all(visits).await?;
            assert_eq!(witness.call("Add", json!([round, 1])).await?["result"], round + 1);
        }
        // The witness counts as two: at its proxy and at the app server.
        until(async || Ok((open_connections(&app, &proxies).await? <= 2.0).then_some(()))).await?;
        assert!((open_connections(&app, &proxies).await? - 2.0).abs() < f64::EPSILON);
        for proxy in &proxies {
            assert!(proxy.metrics().await?.sum("trunkline_links_lost_total", &[]).abs() < f64::EPSILON);
        }
        Ok(())
    });
}
