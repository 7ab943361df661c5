//! Flow control of calls: a client that is faster than its methods is paused.

use serde_json::json;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::{pairs, run_test, until};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

const PAUSES: &str = "trunkline_app_pauses_total";

/// Total size far above the limit of queued calls.
const FLOOD: u64 = 3000;
const FLOOD_PADDING_BYTES: usize = 1000;

#[test]
fn a_client_that_floods_a_slow_method_is_paused_and_no_other_notices() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::JS) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            let pauses =
                async || anyhow::Ok(Metrics::of(test_servers.app.address()).await?.sum(PAUSES, &[("hub", "calls")]));
            for kind in kinds {
                let url = test_servers.url(0, "/calls");
                let flooding = agents.client(kind, &url).count(&["Taken"]).open().await?;
                let other = agents.client(kind, &url).open().await?;
                other.invoke("SetGate", json!([false])).await?;
                let before = pauses().await?;
                flooding.flood_padded("Take", FLOOD, FLOOD_PADDING_BYTES).await?;
                until(async || Ok((pauses().await? > before).then_some(()))).await?;
                for number in 0..100 {
                    assert_eq!(other.invoke("Echo", json!([number])).await?, number);
                }
                assert_eq!(flooding.sequence("Taken", 0).await?.received, 0);
                other.invoke("SetGate", json!([true])).await?;
                let taken = flooding.sequence("Taken", FLOOD).await?;
                assert_eq!((taken.received, taken.first, taken.broken), (FLOOD, Some(0), None), "{kind:?}");
                assert_eq!(flooding.invoke("Echo", json!(["still here"])).await?, "still here");
            }
        }
        Ok(())
    });
}
