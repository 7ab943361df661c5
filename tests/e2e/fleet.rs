//! Fleets: messages that enter at one node reach the clients of all nodes once. A slow or dead node affects only its
//! own clients.

mod absence;
mod announcement;
mod by_nats;
mod coming_back;
mod dead_node;
mod dozen;
mod own_writes;
mod stranger;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, Kind, Message};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::http_client::{Answer, exchange, get};
use trunkline_tests::harness::scenario::{Fixture, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;

const ADMIN_TOKEN: &str = "the-admin-token-of-the-fleet";
const HUB: &str = "bench";
pub(crate) const TARGET: &str = "Notice";
/// Target of announcements that only count: no client has a handler for it.
const PROBE: &str = "Probe";
pub(crate) const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// State of each node by its name, and `unreachable` by the URL of a node with an unknown name.
type Sight = BTreeMap<String, String>;

/// An app server and nodes that form a fleet.
pub(crate) struct FleetScene<'a> {
    fleet: Fleet<'a>,
    app: AppServer,
    pub(crate) nodes: Vec<Proxy>,
}

impl<'a> FleetScene<'a> {
    /// Starts three nodes, each with all nodes as peers, including itself, and waits until their views agree.
    pub(crate) async fn open(fixture: &'a Fixture, more: &[&str]) -> Result<Self> {
        let scene = Self::begin(fixture, &NAMES, more).await?;
        scene.agrees(&NAMES).await?;
        Ok(scene)
    }

    /// Starts nodes with these names, each with all nodes as peers.
    pub(crate) async fn begin(fixture: &'a Fixture, names: &[&str], more: &[&str]) -> Result<Self> {
        Self::begin_with(fixture, &[], names, more).await
    }

    /// As [`begin`](Self::begin), with an app server of these arguments.
    async fn begin_with(fixture: &'a Fixture, of_app: &[&str], names: &[&str], more: &[&str]) -> Result<Self> {
        Self::begin_before(fixture, (App::Bench, of_app), names, more).await
    }

    /// As [`begin_with`](Self::begin_with), with another app server.
    async fn begin_before(
        fixture: &'a Fixture,
        (app, of_app): (App, &[&str]),
        names: &[&str],
        more: &[&str],
    ) -> Result<Self> {
        let admins: Vec<String> = names.iter().map(|_| free_address()).collect::<Result<_>>()?;
        let peers: Vec<&str> = admins.iter().map(String::as_str).collect();
        let fleet = Fleet::new(fixture);
        let app = fleet.app_with(app, of_app).await?;
        let mut scene = Self { fleet, app, nodes: Vec::new() };
        for (name, admin) in names.iter().zip(&admins) {
            scene.start(name, admin, &peers, more)?;
        }
        for node in &mut scene.nodes {
            node.ready().await?;
            node.linked(POOL_SIZE).await?;
        }
        Ok(scene)
    }

    /// Starts another node, without waiting.
    fn start(&mut self, name: &str, admin: &str, peers: &[&str], more: &[&str]) -> Result<()> {
        let urls: Vec<String> = peers.iter().map(|peer| format!("http://{peer}")).collect();
        let mut arguments = vec!["--node-name", name, "--admin-token", ADMIN_TOKEN];
        if !more.contains(&"--fleet-by") {
            arguments.extend(urls.iter().flat_map(|url| ["--peers", url]));
        }
        arguments.extend(more);
        self.nodes.push(self.fleet.proxy_of(&free_address()?, admin, &[self.app.address()], &arguments)?);
        Ok(())
    }

    /// Waits until each node shows these nodes, all ready, and reports that all agree.
    pub(crate) async fn agrees(&self, names: &[&str]) -> Result<()> {
        for node in &self.nodes {
            all_agree(node, names).await?;
        }
        Ok(())
    }

    /// Connects a client of each hub protocol to each of these nodes, with a user and a group per node.
    pub(crate) async fn crowd(&self, agents: &Agents<'_>, nodes: &[Proxy]) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            for kind in Kind::JS {
                let user = token::of_user(ACCESS_KEY, &format!("user-{place}"))?;
                let builder = agents.client(kind, &node.url("/bench")).subscribe(&[TARGET]).access_token(&user);
                let client = builder.open().await?;
                client.invoke("Join", json!([format!("group-{place}")])).await?;
                clients.push(client);
            }
        }
        self.settles(&json!({}), clients.len()).await?;
        for place in 0..nodes.len() {
            self.settles(&json!({ "group": format!("group-{place}") }), Kind::JS.len()).await?;
            self.settles(&json!({ "user": format!("user-{place}") }), Kind::JS.len()).await?;
        }
        Ok(clients)
    }

    /// Waits until all nodes have received the interest of these clients.
    pub(crate) async fn settles(&self, of: &Value, clients: usize) -> Result<()> {
        let mut probe = json!({ "hub": HUB, "target": PROBE, "arguments": [] });
        for (field, name) in of.as_object().context("fields")? {
            probe[field] = name.clone();
        }
        for node in &self.nodes {
            until(async || {
                let reached = announce(node, &probe).await?["clients"].as_u64().context("a number")?;
                Ok((reached >= clients as u64).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// Snapshot of the fleet from one node, including that node.
async fn told(node: &Proxy) -> Result<Value> {
    get(node.admin(), "/api/fleet").await?.json()
}

fn sight(fleet: &Value) -> Result<Sight> {
    let mut sight = Sight::new();
    for node in fleet["nodes"].as_array().context("nodes")? {
        let [name, state] = ["name", "state"].map(|field| node[field].as_str().map(str::to_owned));
        let name = name.context("a name")?;
        let before = sight.insert(name.clone(), state.with_context(|| format!("no state of {name}"))?);
        ensure!(before.is_none(), "{name} is shown twice: {fleet}");
    }
    for peer in fleet["unreachable"].as_array().into_iter().flatten() {
        sight.insert(peer["url"].as_str().context("a URL")?.into(), "unreachable".into());
    }
    Ok(sight)
}

/// Waits until a node shows these states.
async fn sees(node: &Proxy, expected: &[(&str, &str)]) -> Result<Value> {
    let expected: Sight = expected.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect();
    shows(node, |sight| *sight == expected).await
}

/// Waits until a node's view is as expected.
async fn shows(node: &Proxy, is_so: impl Fn(&Sight) -> bool) -> Result<Value> {
    until(async || {
        let fleet = told(node).await?;
        Ok(is_so(&sight(&fleet)?).then_some(fleet))
    })
    .await
}

/// Nodes of these names, all ready.
fn ready(names: &[&str]) -> Sight {
    names.iter().map(|name| ((*name).to_owned(), "ready".to_owned())).collect()
}

/// Waits until a node shows these nodes, all ready, and reports that all agree.
async fn all_agree(node: &Proxy, names: &[&str]) -> Result<()> {
    let expected = ready(names);
    until(async || {
        let fleet = told(node).await?;
        Ok((fleet["agree"] == true && sight(&fleet)? == expected).then_some(()))
    })
    .await
}

/// Announcement to all clients of the hub.
fn to_all(text: &str) -> Value {
    json!({ "hub": HUB, "target": TARGET, "arguments": [text] })
}

async fn post_announcement(node: &Proxy, body: &str) -> Result<Answer> {
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    exchange(node.admin(), Method::POST, "/api/announce", &headers, body.to_owned().into()).await
}

async fn announce(node: &Proxy, body: &Value) -> Result<Value> {
    let answer = post_announcement(node, &body.to_string()).await?;
    ensure!(answer.status == 200, "{answer:?}");
    answer.json()
}

/// Announces at a node, and checks the numbers of nodes and clients reached.
async fn reaches(node: &Proxy, body: &Value, nodes: usize, clients: usize) -> Result<()> {
    let answer = announce(node, body).await?;
    let expected = json!({ "nodes": nodes, "missing": [], "clients": clients });
    ensure!(answer == expected, "{body} is answered with {answer}");
    Ok(())
}

/// Checks that each client receives exactly these texts, in this order, before a fence that is announced here.
async fn got(clients: &mut [Client], node: &Proxy, texts: &[&str]) -> Result<()> {
    announce(node, &to_all("the fence")).await?;
    for client in clients {
        let fence = Message { target: TARGET.into(), arguments: vec![json!("the fence")] };
        let seen = client.before(&fence).await?;
        let seen: Vec<_> = seen.iter().map(|message| message.arguments[0].as_str().unwrap_or_default()).collect();
        ensure!(seen == texts, "a client of {:?} got {seen:?} where {texts:?} were due", client.kind());
    }
    Ok(())
}

/// Number of nodes in a state, according to a node's metrics.
async fn counted(node: &Proxy, state: &str) -> Result<f64> {
    Ok(node.metrics().await?.sum("trunkline_fleet_nodes", &[("state", state)]))
}
