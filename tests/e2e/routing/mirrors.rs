//! Mirrors: they receive the messages of clients, and their failures have no effect on others.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{Fixture, run_test, until};

use super::ruled_fleet::{RuledNode, group, home, named};

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
fn a_mirror_gets_all_calls_of_a_connection_in_order_and_reaches_nobody() {
    run_test(async |fixture| {
        let scene = MirrorScene::start(fixture, "").await?;
        let agents = Agents::new(fixture);
        let mut client = agents.client(Kind::JsMessagePack, &scene.node.chat()).subscribe(&["Shouted"]).open().await?;
        let mut other = agents.client(Kind::JsJson, &scene.node.proxy.url("/news")).open().await?;
        let id = client.connection_id()?.to_owned();
        assert_eq!(home(&client).await?, "stable");
        scene.call(&client, 0..CALLS).await?;
        other.invoke("Hear", json!([1])).await?;
        // The mirror also runs the method, but its sends to all clients are dropped.
        for number in 0..3 {
            client.invoke("Shout", json!([number])).await?;
            assert_eq!(client.expect("Shouted").await?, [json!("stable"), json!(number)]);
        }
        let numbers: Vec<_> = (0..CALLS).collect();
        until(async || Ok((received_numbers(&scene.audit, &id).len() == numbers.len()).then_some(()))).await?;
        assert_eq!(
            (received_numbers(&scene.audit, &id), received_numbers(&scene.stable, &id)),
            (numbers.clone(), numbers)
        );
        assert_eq!(scene.audit.process.lines_after("heard ").len() as u64, CALLS, "nothing of another hub");
        assert_eq!(scene.counted().await?, ((CALLS + 4) as f64, 0.0));
        client.close().await?;
        let gone = |app: &AppServer| app.process.lines_after("disconnected ").contains(&id);
        until(async || Ok((gone(&scene.audit) && gone(&scene.stable)).then_some(()))).await?;
        other.close().await
    });
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

#[test]
fn a_sampled_mirror_gets_whole_connections_or_nothing_of_them() {
    run_test(async |fixture| {
        let scene = MirrorScene::start(fixture, "sample = 0.5").await?;
        let agents = Agents::new(fixture);
        let (mut clients, mut copied) = (Vec::new(), 0);
        for _ in 0..30 {
            let client = agents.client(Kind::JsJson, &scene.node.chat()).open().await?;
            scene.call(&client, 0..3).await?;
            clients.push(client);
        }
        let (sent, dropped) = scene.counted().await?;
        assert_eq!(dropped, 0.0);
        until(async || Ok((scene.audit.process.lines_after("heard ").len() as f64 >= sent).then_some(()))).await?;
        for client in &clients {
            match received_numbers(&scene.audit, client.connection_id()?).as_slice() {
                [] => {}
                [0, 1, 2] => copied += 1,
                other => return Err(anyhow::anyhow!("{other:?}")).context("a part of a connection"),
            }
        }
        // Half of 30, by the hash of random ids: within six standard deviations.
        assert!((1..30).contains(&copied), "{copied}");
        Ok(())
    });
}
