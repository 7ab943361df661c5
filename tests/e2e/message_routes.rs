//! Message routes: specialised app servers and a home app server serve one connection of an official client.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::scenario::run_test;
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
