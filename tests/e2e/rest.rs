//! The REST data plane from outside: back ends send requests to nodes of a fleet, and official clients receive the
//! messages.

mod command_line;
mod description;
mod generated_clients;
mod interruption;
mod intruder;
mod operations;
mod ports;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::balancer::{Balancer, Rule};
use trunkline_tests::harness::client::{Agents, Client, Message};
use trunkline_tests::harness::fleet::ACCESS_KEY;
use trunkline_tests::harness::scenario::Fixture;

use crate::fleet::{FleetScene, TARGET};

const HUB: &str = "bench";

const TWO: [&str; 2] = ["node-a", "node-b"];

/// Two nodes, a balancer, and two clients at each node: one of each hub protocol.
///
/// Clients 0 and 1 are `user-0` in `group-0` at the first node, 2 and 3 are `user-1` in `group-1` at the second.
struct RestScene<'a> {
    fleet: FleetScene<'a>,
    balancer: Balancer,
    clients: Vec<Client>,
    ids: Vec<String>,
}

impl<'a> RestScene<'a> {
    async fn open(fixture: &'a Fixture, agents: &Agents<'_>) -> Result<Self> {
        let fleet = FleetScene::begin(fixture, &TWO, &["--rest"]).await?;
        fleet.agrees(&TWO).await?;
        let clients = fleet.crowd(agents, &fleet.nodes).await?;
        let ids = clients.iter().map(|client| Ok(client.connection_id()?.to_owned())).collect::<Result<_>>()?;
        let addresses: Vec<&str> = fleet.nodes.iter().map(|node| node.address()).collect();
        let balancer = Balancer::start(Rule::InTurn, &addresses).await?;
        Ok(Self { fleet, balancer, clients, ids })
    }

    /// Back ends that use the first node, the second one, and the balancer.
    fn back_ends(&self) -> Result<Vec<BackEnd>> {
        let nodes = self.fleet.nodes.iter().map(|node| node.address());
        nodes.chain([self.balancer.address()]).map(back_end_at).collect()
    }

    fn id(&self, client: usize) -> Result<&str> {
        self.ids.get(client).map(String::as_str).context("there is no such client")
    }

    /// Checks that each client receives exactly these texts, in this order, before a fence.
    async fn got(&mut self, back_end: &BackEnd, due: &[Vec<String>]) -> Result<()> {
        let delivery = back_end.send("/:send", TARGET, &json!("fence")).await?;
        ensure!(delivery == delivered(2, self.clients.len()), "{delivery}");
        ensure!(due.len() == self.clients.len(), "texts for each client");
        for (number, (client, due)) in self.clients.iter_mut().zip(due).enumerate() {
            let seen = texts_before_fence(client).await?;
            ensure!(seen == *due, "client {number} got {seen:?} where {due:?} were due");
        }
        Ok(())
    }
}

fn back_end_at(address: &str) -> Result<BackEnd> {
    BackEnd::trusted(address, HUB, ACCESS_KEY)
}

/// Answer to a send that reached all nodes.
fn delivered(nodes: usize, clients: usize) -> Value {
    json!({ "nodes": nodes, "clients": clients, "missing": [] })
}

async fn texts_before_fence(client: &mut Client) -> Result<Vec<String>> {
    let fence = Message { target: TARGET.into(), arguments: vec![json!("fence")] };
    let seen = client.before(&fence).await?;
    let text = |message: &Message| Some(message.arguments.first()?.as_str()?.to_owned());
    seen.iter().map(|message| text(message).with_context(|| format!("{message:?} holds no text"))).collect()
}
