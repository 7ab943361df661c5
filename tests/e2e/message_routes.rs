//! Message routes: specialised app servers and a home app server serve one connection of an official client.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tls::text;

/// Rounds of calls to all app servers.
const ROUNDS: u64 = 50;

/// Home app server, and app servers of two groups.
struct Scene {
    home: AppServer,
    jobs: Vec<AppServer>,
    counts: AppServer,
    proxy: Proxy,
}

impl Scene {
    async fn start(fleet: &Fleet<'_>, jobs: usize) -> Result<Self> {
        let (home, counts) = (fleet.app(App::Moves).await?, fleet.app(App::Moves).await?);
        let mut workers = Vec::new();
        for _ in 0..jobs {
            workers.push(fleet.app(App::Moves).await?);
        }
        let addresses: Vec<_> = workers.iter().map(|app| format!("\"http://{}\"", app.address())).collect();
        let rules = format!(
            "[groups.jobs]\nupstream = [{}]\n[groups.counts]\nupstream = \"http://{}\"\n\
             [[messages]]\nhub = \"/moves\"\ntarget = [\"Run\", \"Pass\"]\ngroup = \"jobs\"\n\
             [[messages]]\nhub = \"/moves\"\ntarget = \"Count*\"\ngroup = \"counts\"\n",
            addresses.join(", "),
            counts.address(),
        );
        let file = fleet.fixture().folder().join(format!("{}.toml", free_address()?));
        fs::write(&file, rules)?;
        let proxy =
            fleet.proxy_of(&free_address()?, &free_address()?, &[home.address()], &["--config", text(&file)?])?;
        let mut scene = Self { home, jobs: workers, counts, proxy };
        scene.proxy.ready().await?;
        scene.proxy.linked((jobs + 2) * POOL_SIZE).await?;
        Ok(scene)
    }

    /// Index of the worker that ran a call. Its output may be read later than the answer.
    async fn worker_of(&self, tag: &str) -> Result<usize> {
        let has_run = |app: &AppServer| app.process.lines_after("ran ").iter().any(|ran| ran == tag);
        until(async || Ok(self.jobs.iter().position(has_run))).await
    }
}

/// Checks the numbers that a client receives from a group, in order.
async fn assert_numbers(client: &mut Client, count: u64) -> Result<()> {
    for number in 0..count {
        assert_eq!(client.expect("Number").await?, [json!(number)]);
    }
    Ok(())
}

#[test]
fn three_app_servers_serve_one_connection_each_in_order() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut scene = Scene::start(&fleet, 1).await?;
        let agents = Agents::new(fixture);
        for kind in Kind::JS {
            let mut client = agents.client(kind, &scene.proxy.url("/moves")).subscribe(&["Number"]).open().await?;
            let id = client.connection_id()?.to_owned();
            client.invoke("Join", json!([id])).await?;
            for round in 0..ROUNDS {
                let tag = format!("{id}-{round}");
                client.send("Remember", json!([tag])).await?;
                client.send("Run", json!([tag])).await?;
                assert_eq!(
                    client.invoke("Recall", json!([])).await?,
                    Value::from(tag.clone()),
                    "the home runs in order"
                );
                assert_eq!(client.invoke("Run", json!([tag])).await?, Value::from(tag));
            }
            // Another app server reaches a group that the home's method has joined.
            client.invoke("Count", json!([id, ROUNDS])).await?;
            assert_numbers(&mut client, ROUNDS).await?;
            scene.jobs[0].process.wait_for_lines(&format!("ran {id}-"), usize::try_from(2 * ROUNDS)?).await?;
            let ran = scene.jobs[0].process.lines_after(&format!("ran {id}-"));
            let expected: Vec<_> = (0..ROUNDS).flat_map(|round| [round.to_string(), round.to_string()]).collect();
            assert_eq!(ran, expected, "{kind:?}");
            let apps = [&mut scene.home, &mut scene.jobs[0], &mut scene.counts];
            client.close().await?;
            for app in apps {
                app.process.wait_for_line(&format!("disconnected {id}")).await?;
                assert_eq!(app.process.lines_after("connected ").iter().filter(|line| **line == id).count(), 1);
                assert_eq!(app.process.lines_after("rehomed "), [""; 0]);
            }
        }
        for app in [&scene.home, &scene.counts] {
            assert_eq!(app.process.lines_after("ran "), [""; 0], "it runs none of the others' methods");
        }
        Ok(())
    });
}

#[test]
fn a_worker_that_is_killed_fails_its_calls_alone_and_the_next_one_takes_over() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut scene = Scene::start(&fleet, 2).await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &scene.proxy.url("/moves")).open().await?;
        let id = client.connection_id()?.to_owned();
        client.invoke("Remember", json!(["mine"])).await?;
        client.invoke("Run", json!(["first"])).await?;
        let doomed = scene.worker_of("first").await?;
        let pending = client.call("Pass", json!(["pending"]));
        let kill = async {
            scene.jobs[doomed].process.wait_for_lines("ran pending", 1).await?;
            scene.jobs[doomed].process.kill().await
        };
        let (failed, killed) = tokio::join!(pending, kill);
        killed?;
        let error = failed?.expect_err("nobody answers it");
        assert!(error.contains("The app server that ran this call is gone"), "{error}");
        assert_eq!(client.invoke("Run", json!(["second"])).await?, json!("second"));
        let other = 1 - doomed;
        assert_eq!(scene.worker_of("second").await?, other);
        let rehomed = scene.jobs[other].process.wait_for_line(&format!("rehomed {id} ")).await?;
        assert!(rehomed.ends_with(" nothing"), "{rehomed}");
        assert_eq!(client.invoke("Recall", json!([])).await?, json!("mine"), "the home is what it was");
        assert_eq!(scene.home.process.lines_after("rehomed "), [""; 0]);
        client.is_undisturbed().await
    });
}

#[test]
fn a_worker_that_stops_in_order_loses_no_call() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut scene = Scene::start(&fleet, 2).await?;
        let agents = Agents::new(fixture);
        for kind in Kind::JS {
            let client = agents.client(kind, &scene.proxy.url("/moves")).open().await?;
            let id = client.connection_id()?.to_owned();
            client.invoke("Run", json!([format!("{id}-0")])).await?;
            let stopped = scene.worker_of(&format!("{id}-0")).await?;
            let calls = async {
                for round in 1..=4 * ROUNDS {
                    let tag = format!("{id}-{round}");
                    assert_eq!(client.invoke("Run", json!([tag])).await?, Value::from(tag));
                }
                anyhow::Ok(())
            };
            let stop = async {
                scene.jobs[stopped].process.wait_for_lines(&format!("ran {id}-"), 10).await?;
                scene.jobs[stopped].process.signal(Signal::Terminate).await?;
                scene.jobs[stopped].process.ended().await
            };
            let (called, ended) = tokio::join!(calls, stop);
            called?;
            ended?;
            client.invoke("Run", json!([format!("{id}-last")])).await?;
            assert_eq!(scene.worker_of(&format!("{id}-last")).await?, 1 - stopped);
            let ended = scene.jobs[stopped].process.lines_after("disconnected ");
            assert!(!ended.contains(&id), "it was handed over");
            let ran = scene.jobs.iter().flat_map(|app| app.process.lines_after(&format!("ran {id}-"))).count();
            assert_eq!(ran as u64, 4 * ROUNDS + 2, "each call ran once");
            client.is_undisturbed().await?;
            let fixture = fleet.fixture();
            scene.jobs[stopped].start_again(fixture).await?;
            scene.proxy.linked(4 * POOL_SIZE).await?;
        }
        Ok(())
    });
}
