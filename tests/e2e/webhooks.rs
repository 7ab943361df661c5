//! Hubs behind webhooks: the documented back ends with official clients.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet, Proxy, stop};
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, run_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::python;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src/examples/webhooks");

/// Packages of the examples in JavaScript: the official client's.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js/node_modules");

fn in_python(_stage: &Fixture) -> Result<Command> {
    let mut command = python("python")?;
    command.arg("-B").arg(Path::new(EXAMPLES).join("server.py"));
    Ok(command)
}

fn in_node(fixture: &Fixture) -> Result<Command> {
    let folder = fixture.folder().join("example");
    std::fs::create_dir(&folder)?;
    std::os::unix::fs::symlink(PACKAGES, folder.join("node_modules"))?;
    let program: PathBuf = folder.join("server.mjs");
    std::fs::copy(Path::new(EXAMPLES).join("server.mjs"), &program)?;
    let mut command = Command::new("node");
    command.arg(program);
    Ok(command)
}

/// Back end of the examples, and a proxy.
struct Scene {
    back_end: Process,
    proxy: Proxy,
}

impl Scene {
    async fn start(fixture: &Fixture, mut command: Command, key: &str) -> Result<Self> {
        let (address, own) = (free_address()?, free_address()?);
        let (_, port) = own.rsplit_once(':').context("an address has a port")?;
        let token = trunkline_protocol::dial_in::sign_rest_token(
            &trunkline_protocol::key::AccessKey::new(ACCESS_KEY)?,
            None,
            u64::MAX >> 12,
        );
        command.arg(port).env("WEBHOOK_SECRET", key);
        command.env("TRUNKLINE_REST", format!("http://{address}")).env("TRUNKLINE_REST_TOKEN", token);
        let mut back_end = Process::start(fixture, "back-end", command)?;
        back_end.wait_for_line("listening").await?;
        let webhook = format!("chat=http://{own}/{{hub}}/{{category}}/{{event}}");
        let arguments = ["--upstream-webhook", &webhook, "--rest"];
        let mut proxy = Fleet::new(fixture).proxy_of(&address, &free_address()?, &[], &arguments)?;
        proxy.ready().await?;
        Ok(Self { back_end, proxy })
    }
}

async fn serves_official_clients(fixture: &Fixture, command: Command) -> Result<()> {
    let Scene { mut back_end, mut proxy } = Scene::start(fixture, command, ACCESS_KEY).await?;
    let agents = Agents::new(fixture);
    let mut clients = Vec::new();
    for kind in Kind::JS {
        clients.push(agents.client(kind, &proxy.url("/chat")).subscribe(&["Said"]).open().await?);
    }
    for client in &clients {
        assert_eq!(client.invoke("Add", json!([2, 3])).await?, 5, "{:?}", client.kind());
        let error = client.invoke_failing("NoSuchMethod", json!([])).await?;
        ensure!(error.contains("Invocation failed, status code 404."), "{error}");
        let error = client.invoke_failing("../Add", json!([1, 1])).await?;
        ensure!(error.contains("The name of the method is not supported"), "{error}");
    }
    let [first, second] = &mut clients[..] else { anyhow::bail!("there are two") };
    for text in ["one", "two"] {
        first.send("Say", json!([text])).await?;
        assert_eq!(first.expect("Said").await?, [Value::Null, json!(text)]);
        assert_eq!(second.expect("Said").await?, [Value::Null, json!(text)]);
    }
    first.close().await?;
    back_end.wait_for_lines("connected ", 2).await?;
    back_end.wait_for_lines("disconnected ", 1).await?;
    // The disconnect is reported before the proxy ends.
    stop(&mut proxy.process, Signal::Terminate).await?;
    back_end.wait_for_lines("disconnected ", 2).await?;
    let (mut begun, mut ended) = (back_end.lines_after("connected "), back_end.lines_after("disconnected "));
    begun.sort();
    ended.sort();
    assert_eq!(begun, ended);
    Ok(())
}

#[test]
fn a_back_end_in_python_serves_official_clients() {
    run_test(async |fixture| serves_official_clients(fixture, in_python(fixture)?).await);
}

#[test]
fn a_back_end_in_node_serves_official_clients() {
    run_test(async |fixture| serves_official_clients(fixture, in_node(fixture)?).await);
}
