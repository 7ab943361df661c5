//! A node dies, and its clients open new connections at another node. With proof of their identity they get their
//! groups, items and user back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test, until};
use trunkline_tests::harness::shipped::{BalancerProduct, LoadBalancer, Shipped};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;

use super::NAMES;

const GROUP: &str = "room";

/// Delays between a client's attempts, until the balancer has noticed.
const RETRIES_MS: [u64; 12] = [0, 100, 100, 200, 200, 500, 500, 1000, 1000, 1000, 1000, 1000];

/// Time limit for a client's return on a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Fleet of three nodes with one app server, behind HAProxy.
struct Scene {
    app: AppServer,
    nodes: Vec<Proxy>,
    balancer: LoadBalancer,
}

async fn open(fixture: &Fixture) -> Result<Scene> {
    let fleet = Fleet::new(fixture);
    let app = fleet.app_with(App::Moves, &[]).await?;
    let admins = NAMES.iter().map(|_| free_address()).collect::<Result<Vec<_>>>()?;
    let peers: Vec<_> = admins.iter().map(|admin| format!("http://{admin}")).collect();
    let mut nodes = Vec::new();
    for (name, admin) in NAMES.iter().zip(&admins) {
        let mut arguments = vec!["--node-name", name];
        arguments.extend(peers.iter().flat_map(|peer| ["--peers", peer]));
        nodes.push(fleet.proxy_of(&free_address()?, admin, &[app.address()], &arguments)?);
    }
    for node in &mut nodes {
        node.ready().await?;
        node.linked(POOL_SIZE).await?;
    }
    let balancer = Shipped::read(BalancerProduct::HaProxy)?.start(fixture, &nodes).await?;
    Ok(Scene { app, nodes, balancer })
}

impl Scene {
    /// Opens a client of ann at the first node, joins the group and stores a name.
    async fn ann_at_the_first_node(&self, agents: &Agents<'_>, kind: Kind) -> Result<Client> {
        let user = token::of_user(ACCESS_KEY, "ann")?;
        let builder = agents.client(kind, &self.nodes[0].url("/moves")).subscribe(&["Number"]).stateful().restoring();
        let builder = builder.access_token(&user).reconnect_after_ms(&RETRIES_MS);
        let client = builder.reconnect_to(&self.balancer.url("/moves")).open().await?;
        client.invoke("Join", json!([GROUP])).await?;
        client.invoke("Remember", json!(["ann's name"])).await?;
        Ok(client)
    }
}

/// Connection id and user of a client, as its app server sees them.
async fn who(client: &Client) -> Result<(String, Value)> {
    let seen = client.invoke("Who", json!([])).await?;
    Ok((seen[1].as_str().context("an id")?.to_owned(), seen[2].clone()))
}

#[test]
fn clients_of_a_node_that_is_killed_have_their_groups_items_and_user_at_the_other() {
    run_heavy_test(async |fixture| {
        let scene = open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for kind in Kind::JS {
            clients.push(scene.ann_at_the_first_node(&agents, kind).await?);
        }
        let mut before = Vec::new();
        for client in &clients {
            before.push(who(client).await?.0);
        }
        let killed = Instant::now();
        scene.nodes[0].process.signal(Signal::Kill).await?;
        for client in &mut clients {
            client.reconnected().await?;
        }
        ensure!(killed.elapsed() < BACK_WITHIN, "they were gone for {:?}", killed.elapsed());
        for (client, lost) in clients.iter().zip(&before) {
            let (id, user) = who(client).await?;
            assert_eq!(user, "ann");
            assert_ne!(id, *lost);
            assert_eq!(client.invoke("Recall", json!([])).await?, "ann's name");
            let told = until(async || {
                Ok(scene.app.process.lines_after("restored ").into_iter().find(|line| line.starts_with(&id)))
            });
            let told = told.await?;
            let mut words = told.split(' ').skip(1);
            assert_eq!(words.next(), Some(lost.as_str()));
            let gone_for: u64 = words.next().context("a time")?.parse()?;
            ensure!(gone_for < 20, "{gone_for} s, and not what a client of a node that lives may be silent");
            let order = scene.app.process.lines_after("");
            let place = |line: String| order.iter().position(|told| *told == line).context("a line of the hub");
            ensure!(place(format!("disconnected {lost}"))? < place(format!("connected {id}"))?, "{order:?}");
        }
        clients[0].invoke("Count", json!([GROUP, 3])).await?;
        for client in &mut clients {
            for number in 0..3 {
                assert_eq!(client.expect("Number").await?, [json!(number)]);
            }
        }
        Ok(())
    });
}

#[test]
fn a_forged_token_restores_nothing_and_refuses_nobody() {
    run_heavy_test(async |fixture| {
        let scene = open(fixture).await?;
        let agents = Agents::new(fixture);
        let ann = scene.ann_at_the_first_node(&agents, Kind::JsJson).await?;
        let url = scene.nodes[1].url("/moves");
        let forger = agents.client(Kind::JsJson, &url).restoring_forged("a-token-of-somebody").open().await?;
        assert_eq!(who(&forger).await?.1, Value::Null);
        assert_eq!(forger.invoke("Recall", json!([])).await?, Value::Null);
        let refused = scene.nodes[1].metrics().await?.sum("trunkline_restores_total", &[("outcome", "refused")]);
        assert_eq!(refused, 1.0);
        assert_eq!(ann.invoke("Recall", json!([])).await?, "ann's name");
        Ok(())
    });
}
