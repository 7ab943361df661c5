//! Short run of the chaos test: each supported fault once, with a few clients.

use anyhow::ensure;
use tokio::process::Command;
use trunkline_tests::harness::scenario::{is_full, profile_folder, run_heavy_test};

#[test]
fn clients_notice_no_more_of_faults_than_they_may() {
    run_heavy_test(async |_| {
        let clients = if is_full() { "500" } else { "60" };
        let mut chaos = Command::new(profile_folder()?.join("chaos"));
        chaos.args(["--clients", clients, "--echo-ms", "200", "--peace-ms", "300", "--drain-timeout", "2"]);
        let done = chaos.kill_on_drop(true).output().await?;
        let (table, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "{table}\n{errors}");
        for fault in ["drain-proxy", "kill-proxy", "freeze-app", "cut-link", "cut-link-inside", "stop-app", "kill-app"]
        {
            let line = table.lines().find(|line| line.starts_with(fault)).unwrap_or_default();
            ensure!(line.ends_with("ok"), "{table}");
        }
        Ok(())
    });
}
