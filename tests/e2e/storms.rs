//! All clients reconnect simultaneously: the node accepts the configured number at a time.

use anyhow::ensure;
use tokio::process::Command;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet};
use trunkline_tests::harness::scenario::{profile_folder, run_heavy_test};

const CLIENTS: &str = "60";

#[test]
fn in_a_storm_clients_that_are_told_to_wait_connect_too() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--connects-per-second", "20", "--connect-wait-ms", "100"]).await?;
        let mut load = Command::new(profile_folder()?.join("trunkline-load"));
        load.args(["storm", "-s", proxy.address(), "-c", CLIENTS, "-u", "4", "-r", "7", "-d", "1", "-i", "2000"]);
        load.args(["--access-key", ACCESS_KEY]);
        let done = load.kill_on_drop(true).output().await?;
        let report = String::from_utf8_lossy(&done.stdout);
        // The load tester reports a run with refused clients as faulty, as expected here.
        let back = format!("storm 1: {CLIENTS} of {CLIENTS} back");
        ensure!(report.contains(&back), "{report}\n{}", String::from_utf8_lossy(&done.stderr));
        let refused = proxy.metrics().await?.sum("trunkline_limits_reached_total", &[("limit", "connects")]);
        ensure!(refused > 0.0, "nobody had to wait:\n{report}");
        Ok(())
    });
}
