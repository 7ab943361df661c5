//! Method firewall: the official client receives the reason of a refused call, which never reaches the app server.

use std::fs;

use anyhow::Result;
use futures_util::future::join_all;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::tls::text;

const RULES: &str = "
[[methods]]
hub = \"/moves\"
name = \"firewall\"
deny = [\"Rec*\"]
per-second = { \"Run\" = 5 }
max-bytes = { \"Remember\" = 200 }
";

/// Concurrent calls, far above the rate limit.
const CALLS: usize = 40;

async fn ruled(fleet: &Fleet<'_>, app: &AppServer) -> Result<Proxy> {
    let file = fleet.fixture().folder().join("rules.toml");
    fs::write(&file, RULES)?;
    fleet.proxy_with(&[app], &["--config", text(&file)?]).await
}

#[test]
fn refused_calls_are_errors_at_the_client_and_unknown_to_the_app_server() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Moves).await?;
        let proxy = ruled(&fleet, &app).await?;
        let agents = Agents::new(fixture);
        let (mut allowed, mut refusals) = (0, 0);
        for kind in Kind::JS {
            let client = agents.client(kind, &proxy.url("/moves")).open().await?;
            let error = client.invoke_failing("Recall", json!([])).await?;
            assert_eq!(error, "The method 'Recall' can't be called: the server's rules refuse it.", "{kind:?}");
            client.send("Recall", json!([])).await?;
            client.invoke("Remember", json!(["short"])).await?;
            let error = client.invoke_failing("Remember", json!(["x".repeat(300)])).await?;
            assert_eq!(error, "The method 'Remember' can't be called with a message of more than 200 bytes.");
            let outcomes = join_all((0..CALLS).map(|_| client.call("Run", json!(["quick"])))).await;
            let outcomes = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
            let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
            let text = "The method 'Run' can't be called more than 5 times a second: the server's rules limit it.";
            assert!(
                (1..=CALLS - 5).contains(&refused.len()) && refused.iter().all(|error| **error == text),
                "{refused:?}"
            );
            let ran = CALLS - refused.len();
            allowed += ran;
            app.process.wait_for_lines("ran quick", allowed).await?;
            assert_eq!(app.process.lines_after("ran quick").len(), allowed, "what was refused did not run");
            refusals += refused.len() + 3;
            client.is_undisturbed().await?;
            let counted = proxy.metrics().await?.sum("trunkline_methods_refused_total", &[("rule", "firewall")]);
            assert_eq!(counted, refusals as f64);
        }
        app.process.wait_for_lines("connected ", 2).await?;
        Ok(())
    });
}
