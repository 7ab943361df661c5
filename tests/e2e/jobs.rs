//! Exclusive tasks: with two app servers each client receives each second once, even if one of them stops or is killed.

use anyhow::{Context, Result, ensure};
use trunkline_tests::harness::fleet::{App, Fleet, POOL_SIZE, stop};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

/// Client that receives the time from the example `background`.
struct Listener {
    client: RawClient,
    latest: u64,
}

impl Listener {
    /// Receives `count` times, each later than the one before.
    async fn receives(&mut self, count: usize, when: &str) -> Result<()> {
        for _ in 0..count {
            let message = loop {
                let record = self.client.next_record().await?;
                // Pings are skipped.
                if record["target"] == "Time" {
                    break record;
                }
            };
            let second = message["arguments"][0].as_u64().context("seconds")?;
            ensure!(second > self.latest, "{when}: {second} after {}", self.latest);
            self.latest = second;
        }
        Ok(())
    }
}

#[test]
fn of_two_app_servers_one_tells_the_time_whichever_ends() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut apps = [fleet.app(App::Background).await?, fleet.app(App::Background).await?];
        let mut listeners = Vec::new();
        let nodes =
            [fleet.proxy_with(&[&apps[0], &apps[1]], &[]).await?, fleet.proxy_with(&[&apps[0], &apps[1]], &[]).await?];
        for node in &nodes {
            listeners.push(Listener { client: RawClient::join(node.address(), "/news").await?, latest: 0 });
        }
        for listener in &mut listeners {
            listener.receives(3, "undisturbed").await?;
        }
        // The app server that started first runs the task.
        apps[0].process.kill().await?;
        for listener in &mut listeners {
            listener.receives(2, "after a kill of the app server with the task").await?;
        }
        apps[0].start_again(fixture).await?;
        for node in &nodes {
            node.linked(2 * POOL_SIZE).await?;
        }
        for listener in &mut listeners {
            listener.receives(3, "with a new app server").await?;
        }
        stop(&mut apps[1].process, Signal::Terminate).await?;
        for listener in &mut listeners {
            listener.receives(2, "after a stop of the app server with the task").await?;
        }
        Ok(())
    });
}
