//! Mirrors: they receive the messages of clients, and their failures have no effect on others.

use anyhow::{Result, ensure};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{Fixture, run_test, until};

use super::ruled_fleet::{RuledNode, group, named};

/// Calls of each client in each state of the mirror.
const CALLS: u64 = 200;

const COPIES: &str = "trunkline_mirror_messages_total";

/// Mirror in the syntax of the file.
fn mirror(more: &str) -> String {
    format!("[[mirrors]]\nname = \"tee\"\nhub = \"/chat\"\ngroup = \"audit\"\n{more}\n")
}

/// Primary app server and mirror behind a node.
struct MirrorScene {
    stable: AppServer,
    audit: AppServer,
    node: RuledNode,
}

impl MirrorScene {
    async fn start(fixture: &Fixture, more: &str) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let stable = named(&fleet, "stable").await?;
        let audit = fleet.app_with(App::Roles, &["--name", "audit"]).await?;
        let rules = group("audit", &audit) + &mirror(more);
        let node = RuledNode::with_apps(&fleet, &stable, &["stable", "audit"], &rules).await?;
        Ok(Self { stable, audit, node })
    }

    /// Numbers of messages sent to the mirror, and of messages lost.
    async fn counted(&self) -> Result<(f64, f64)> {
        let sent = self.node.metric(COPIES, &[("mirror", "tee"), ("outcome", "sent")]).await?;
        Ok((sent, self.node.metric(COPIES, &[("mirror", "tee"), ("outcome", "dropped")]).await?))
    }

    /// Calls `Hear` with the next numbers. Each call must be answered.
    async fn call(&self, client: &Client, numbers: std::ops::Range<u64>) -> Result<()> {
        for number in numbers {
            let answer = client.invoke("Hear", json!([number])).await?;
            ensure!(answer == json!(number), "{answer} instead of {number}");
        }
        Ok(())
    }
}

/// Numbers that an app server received from a connection, in order.
fn received_numbers(app: &AppServer, id: &str) -> Vec<u64> {
    let lines = app.process.lines_after(&format!("heard {id} "));
    lines.iter().filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn a_mirror_that_is_killed_frozen_and_started_again_costs_no_call_and_all_copies_are_accounted_for() {
    run_test(async |fixture| {
        let mut scene = MirrorScene::start(fixture, "").await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &scene.node.chat()).open().await?;
        let id = client.connection_id()?.to_owned();
        scene.call(&client, 0..CALLS).await?;
        scene.audit.process.signal(Signal::Freeze).await?;
        scene.call(&client, CALLS..2 * CALLS).await?;
        scene.audit.process.signal(Signal::Thaw).await?;
        // The queued messages arrive.
        let sent = scene.counted().await?.0;
        until(async || Ok((received_numbers(&scene.audit, &id).len() as f64 >= sent).then_some(()))).await?;
        scene.audit.process.kill().await?;
        scene.call(&client, 2 * CALLS..3 * CALLS).await?;
        scene.audit.start_again(fixture).await?;
        let mut next = 3 * CALLS;
        let again = until(async || {
            scene.call(&client, next..next + 1).await?;
            next += 1;
            Ok(received_numbers(&scene.audit, &id).first().copied())
        })
        .await?;
        assert!(again >= 2 * CALLS, "{again}");
        scene.call(&client, next..next + CALLS).await?;
        next += CALLS;
        let copied = |received_numbers: &[u64]| {
            received_numbers.windows(2).all(|pair| pair[0] < pair[1]) && received_numbers.last() == Some(&(next - 1))
        };
        until(async || Ok(copied(&received_numbers(&scene.audit, &id)).then_some(()))).await?;
        let (sent, dropped) = scene.counted().await?;
        assert_eq!(sent + dropped, next as f64);
        assert_eq!(received_numbers(&scene.stable, &id), (0..next).collect::<Vec<_>>());
        assert!(scene.audit.process.lines_after("rehomed ").contains(&id), "a copy that comes from elsewhere");
        client.is_undisturbed().await
    });
}
