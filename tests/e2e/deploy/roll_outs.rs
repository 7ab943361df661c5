//! Old and new task of a rollout: their names in each shipped file, and both side by side under one name.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::http_client;
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::{read_yaml, shipped};

const CLIENTS: usize = 20;

/// Time after which two nodes with the same name are distinguished from a restarted one, in seconds.
const WINDOW_S: &str = "2";

/// Task of a container engine: one slot, with an id per start.
struct Task {
    slot: &'static str,
    id: &'static str,
}

/// Old and new task of one slot.
const TASKS: [Task; 2] =
    [Task { slot: "1", id: "q1zkxdkrmglhvdlplcyxdhd7a" }, Task { slot: "1", id: "v8c4k6p1p0qkz3dlolkgm5zq2" }];

impl Task {
    /// Fills in a Docker template.
    fn fill(&self, template: &str) -> String {
        let name = "trunkline_proxy";
        let task = format!("{name}.{}.{}", self.slot, self.id);
        let fields = [("Service.Name", name), ("Task.Slot", self.slot), ("Task.ID", self.id), ("Task.Name", &task)];
        fields
            .iter()
            .fold(template.to_owned(), |text, (field, value)| text.replace(&format!("{{{{.{field}}}}}"), value))
    }
}

/// Names that the stack gives to the old and the new task of one slot.
async fn names_in_stack() -> Result<[String; 2]> {
    let stack = &read_yaml(&[shipped("swarm/stack.yml")]).await?[0];
    let template = stack["services"]["proxy"]["environment"]["TRUNKLINE_NODE_NAME"].as_str().context("no name")?;
    Ok(TASKS.map(|task| task.fill(template)))
}

/// Source of a variable's value in a container.
fn source<'a>(pod: &'a Value, variable: &str) -> &'a Value {
    let containers = pod["spec"]["template"]["spec"]["containers"].as_array();
    let all = containers.into_iter().flatten().filter_map(|container| container["env"].as_array()).flatten();
    let found = all.into_iter().find(|entry| entry["name"] == variable);
    found.map_or(&Value::Null, |entry| &entry["valueFrom"]["fieldRef"]["fieldPath"])
}

#[test]
fn no_shipped_file_gives_two_tasks_that_run_at_once_one_name() {
    run_test(async |_stage| {
        let [old, new] = names_in_stack().await?;
        assert_ne!(old, new, "with start-first both tasks of a slot run at once");
        assert!(!old.contains('{') && old.len() <= 64, "{old}");
        let pods = read_yaml(&[shipped("kubernetes/proxy.yaml")]).await?;
        let named: Vec<_> =
            pods.iter().map(|pod| source(pod, "TRUNKLINE_NODE_NAME")).filter(|path| !path.is_null()).collect();
        assert_eq!(named, ["metadata.name"], "the name of the pod");
        let chart = std::fs::read_to_string(shipped("helm/trunkline/templates/deployment.yaml"))?;
        let after = chart.split_once("TRUNKLINE_NODE_NAME").context("no name")?.1;
        let value = after.lines().nth(1).unwrap_or_default();
        assert!(value.contains("fieldPath: metadata.name"), "{value}");
        // Compose replaces a container in place and may run several, so each node generates its name.
        let compose = &read_yaml(&[shipped("compose.yaml")]).await?[0]["services"]["proxy"];
        assert!(compose["environment"].get("TRUNKLINE_NODE_NAME").is_none() && compose.get("container_name").is_none());
        // systemd runs one process per unit, named like the machine. `local/run` numbers its nodes.
        let unit = std::fs::read_to_string(shipped("systemd/trunkline.service"))?;
        assert!(unit.contains("Environment=TRUNKLINE_NODE_NAME=%H\n"));
        let local = std::fs::read_to_string(shipped("local/run"))?;
        assert!(local.contains("--node-name \"node-$((place + 1))\""));
        Ok(())
    });
}

/// Two nodes of a fleet with one app server; the second node starts while clients of the first call.
struct RollOut<'a> {
    fixture: &'a Fixture,
    app: AppServer,
    old: Proxy,
    admins: [String; 2],
}

impl<'a> RollOut<'a> {
    async fn begin(fixture: &'a Fixture, name: &str) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app_with(App::Bench, &["--stateful"]).await?;
        let admins = [free_address()?, free_address()?];
        let old = Self::node(&fleet, &app, &admins, name).await?;
        Ok(Self { fixture, app, old, admins })
    }

    /// Starts the node at the first of these admin ports, and waits for all its links.
    async fn node(fleet: &Fleet<'_>, app: &AppServer, admins: &[String; 2], name: &str) -> Result<Proxy> {
        let peer = format!("http://{}", admins[1]);
        let more = ["--node-name", name, "--peers", &peer, "--resume-window", WINDOW_S];
        let mut node = fleet.proxy_of(&free_address()?, &admins[0], &[app.address()], &more)?;
        node.ready().await?;
        node.linked(5).await?;
        Ok(node)
    }

    /// Starts the new task while clients of the old one call and send. Continues until `is_seen` completes.
    async fn start_second(&self, name: &str, is_seen: impl AsyncFnOnce(&Self, &Proxy) -> Result<()>) -> Result<()> {
        let agents = Agents::new(self.fixture);
        let url = self.old.url("/bench");
        let open = (0..CLIENTS).map(|_| {
            let client = agents.client(Kind::JsJson, &url).transport(Transport::WebSockets);
            client.stateful().count(&["Echoed"]).open()
        });
        let clients = try_join_all(open).await?;
        let is_over = Cell::new(false);
        let calling = try_join_all(clients.iter().map(|client| call_until(client, &is_over)));
        let second = async {
            let [own, other] = self.admins.clone();
            let node = Self::node(&Fleet::new(self.fixture), &self.app, &[other, own], name).await;
            let seen = match &node {
                Ok(node) => is_seen(self, node).await,
                Err(_) => Ok(()),
            };
            is_over.set(true);
            seen?;
            node
        };
        let (calls, _second) = tokio::try_join!(calling, second)?;
        ensure!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
        for client in &clients {
            client.is_undisturbed().await?;
        }
        Ok(())
    }
}

/// Calls and sends alternately until the end. No call fails, and each message is echoed once and in order.
async fn call_until(client: &Client, is_over: &Cell<bool>) -> Result<u64> {
    let mut number = 0;
    while !is_over.get() {
        assert_eq!(client.invoke("Echo", json!([number])).await?, number);
        client.send("EchoBack", json!([number])).await?;
        number += 1;
    }
    let echoed = client.sequence("Echoed", number).await?;
    ensure!(echoed.received == number && echoed.broken.is_none(), "{echoed:?} of {number}");
    Ok(number)
}

#[test]
fn two_nodes_of_one_name_do_no_harm_and_are_told_of() {
    run_heavy_test(async |fixture| {
        let roll_out = RollOut::begin(fixture, "x").await?;
        roll_out
            .start_second("x", async |roll_out, new| {
                // By then the app server has compared both nodes.
                until(async || Ok(roll_out.app.process.log().contains("two proxies have this name").then_some(())))
                    .await?;
                for node in [&roll_out.old, new] {
                    until(async || {
                        let fleet = http_client::get(node.admin(), "/api/fleet").await?.json()?;
                        let names: Vec<_> =
                            fleet["nodes"].as_array().into_iter().flatten().map(|node| node["name"].clone()).collect();
                        Ok((names == ["x", "x"]).then_some(()))
                    })
                    .await?;
                    until(async || {
                        Ok(node.process.log().contains("several nodes of the fleet have the same name").then_some(()))
                    })
                    .await?;
                }
                Ok(())
            })
            .await?;
        let told = roll_out.app.process.log().matches("two proxies have this name").count();
        assert_eq!(told, 1, "once is enough");
        Ok(())
    });
}

#[test]
fn the_old_and_the_new_task_of_a_slot_serve_side_by_side() {
    run_heavy_test(async |fixture| {
        let [old, new] = names_in_stack().await?;
        let roll_out = RollOut::begin(fixture, &old).await?;
        roll_out.start_second(&new, async |_, _| Ok(())).await?;
        assert!(!roll_out.app.process.log().contains("two proxies have this name"));
        Ok(())
    });
}
