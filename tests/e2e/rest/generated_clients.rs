//! Clients that are generated from `openapi.json`, in TypeScript and in Python: they call each operation of a node, and
//! check results and errors.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::Path as UrlPath;
use axum::routing::post;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet, Proxy};
use trunkline_tests::harness::http_client::{exchange, get};
use trunkline_tests::harness::raw::{RECORD_SEPARATOR, RawClient};
use trunkline_tests::harness::scenario::{Fixture, run_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;
use trunkline_tests::harness::tools::{python, run};

/// Programs that call each operation, and the packages of the generator in TypeScript.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/openapi");

const ADMIN_TOKEN: &str = "the-admin-token-of-the-tests";

const USERS: [&str; 4] = ["ann", "ben", "cal", "dan"];

/// Texts that each user's client receives from both programs, and its close.
const RECEIVED: [&[&str]; 4] = [
    &["all", "excluded", "encoded", "user", "connection", "batch", "group", "command", "item", "no more", "time to go"],
    &["all", "encoded", "batch", "others", "time to go"],
    &["all", "encoded", "others", "time to go"],
    &["all", "excluded", "encoded", "others", "time to go"],
];

/// Node with a webhook for its hub, and a client of each user.
struct GeneratedScene {
    proxy: Proxy,
    ids: Value,
    connection_token: String,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl GeneratedScene {
    async fn open(fixture: &Fixture) -> Result<Self> {
        let (webhook, mut events) = streaming_back_end().await?;
        let config = fixture.folder().join("node.toml");
        std::fs::write(&config, "[webhooks.chat]\nclose-on-token-expiry = true\n")?;
        let config = config.to_string_lossy().into_owned();
        let arguments = ["--rest", "--admin-token", ADMIN_TOKEN, "--upstream-webhook", &webhook, "--config", &config];
        let mut proxy = Fleet::new(fixture).proxy_of(&free_address()?, &free_address()?, &[], &arguments)?;
        proxy.ready().await?;
        let mut scene = Self { proxy, ids: json!({}), connection_token: String::new(), clients: Vec::new() };
        for user in USERS {
            scene.join(user).await?;
        }
        while events.recv().await.context("the back end")? != "Count" {}
        Ok(scene)
    }

    async fn join(&mut self, user: &str) -> Result<()> {
        let (address, query) = (self.proxy.address(), format!("access_token={}", token::of_user(ACCESS_KEY, user)?));
        let path = format!("/chat/negotiate?negotiateVersion=1&{query}");
        let negotiated = exchange(address, Method::POST, &path, &[], Bytes::new()).await?.json()?;
        let token = negotiated["connectionToken"].as_str().context("a connection token")?;
        let mut client = RawClient::join(address, &format!("/chat?id={token}&{query}")).await?;
        if user == "ann" {
            let stream = json!({ "type": 4, "invocationId": "s1", "target": "Count", "arguments": [] });
            client.send_text(format!("{stream}{RECORD_SEPARATOR}")).await?;
            self.connection_token = token.to_owned();
        }
        self.ids[user] = negotiated["connectionId"].clone();
        self.clients.push(tokio::spawn(texts_of(client)));
        Ok(())
    }

    /// Argument of the programs.
    fn description(&self) -> Result<String> {
        let (url, admin) = (self.proxy.url(""), format!("http://{}", self.proxy.admin()));
        let back_end = BackEnd::trusted(self.proxy.address(), "chat", ACCESS_KEY)?;
        let token = back_end.authorization().trim_start_matches("Bearer ");
        let scene = json!({ "url": url, "admin": admin, "token": token, "adminToken": ADMIN_TOKEN,
            "connectionToken": self.connection_token, "ids": self.ids });
        Ok(scene.to_string())
    }

    /// Runs a program, and checks what the clients received.
    async fn run(self, program: &mut Command) -> Result<()> {
        run(program.arg(self.description()?)).await?;
        for ((user, client), expected) in USERS.iter().zip(self.clients).zip(RECEIVED) {
            let received = client.await?;
            ensure!(received == expected, "{user} received {received:?}");
        }
        Ok(())
    }
}

/// Starts a back end that answers each call by a stream. Returns its URL, and the names of the events.
async fn streaming_back_end() -> Result<(String, UnboundedReceiver<String>)> {
    let (sender, events) = mpsc::unbounded_channel();
    let handle = async move |UrlPath((category, event)): UrlPath<(String, String)>| {
        drop(sender.send(event));
        if category == "messages" { StatusCode::ACCEPTED } else { StatusCode::NO_CONTENT }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("chat=http://{}/{{category}}/{{event}}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/{category}/{event}", post(handle))).await });
    Ok((url, events))
}

/// Texts that a client receives up to its close. It answers invocations: `Ask` with a value, others with an error.
async fn texts_of(mut client: RawClient) -> Vec<String> {
    let mut texts = Vec::new();
    while let Ok(record) = client.next_record().await {
        if let (Some(id), Some(target)) = (record["invocationId"].as_str(), record["target"].as_str()) {
            let mut answer = json!({ "type": 3, "invocationId": id });
            match target {
                "Ask" => answer["result"] = json!({ "is": [7, null, "å"] }),
                _ => answer["error"] = json!("not now"),
            }
            drop(client.send_text(format!("{answer}{RECORD_SEPARATOR}")).await);
            continue;
        }
        let item = (record["item"] == json!({ "n": 1 })).then_some("item");
        let text = record["arguments"][0].as_str().or(record["error"].as_str()).or(item);
        texts.push(text.map_or_else(|| record.to_string(), str::to_owned));
    }
    texts
}

/// Writes the description of a node into the folder of the test.
async fn save_description(fixture: &Fixture, address: &str) -> Result<()> {
    let description = get(address, "/api/openapi.json").await?;
    Ok(std::fs::write(fixture.folder().join("openapi.json"), description.body)?)
}

#[test]
fn a_generated_client_in_typescript_calls_each_operation() {
    run_test(async |fixture| {
        let scene = GeneratedScene::open(fixture).await?;
        save_description(fixture, scene.proxy.address()).await?;
        let packages = fixture.folder().join("node_modules");
        std::os::unix::fs::symlink(Path::new(PROGRAMS).join("node_modules"), &packages)?;
        for file in ["calls.ts", "package.json"] {
            std::fs::copy(Path::new(PROGRAMS).join(file), fixture.folder().join(file))?;
        }
        let command = |name: &str| {
            let mut command = Command::new(packages.join(".bin").join(name));
            command.current_dir(fixture.folder());
            command
        };
        run(command("openapi-typescript").args(["openapi.json", "--output", "schema.d.ts"])).await?;
        let options = "--noEmitOnError --strict --noUncheckedIndexedAccess --target es2022 --module nodenext --skipLibCheck calls.ts";
        run(command("tsc").args(options.split(' '))).await?;
        scene.run(Command::new("node").arg(fixture.folder().join("calls.js"))).await
    });
}

#[test]
fn a_generated_client_in_python_calls_each_operation() {
    run_test(async |fixture| {
        let scene = GeneratedScene::open(fixture).await?;
        save_description(fixture, scene.proxy.address()).await?;
        // The formatter of generated code is not needed.
        std::fs::write(fixture.folder().join("settings.yml"), "post_hooks: []\n")?;
        let mut generator = python("openapi-python-client")?;
        let options =
            "generate --fail-on-warning --meta none --path openapi.json --output-path rest --config settings.yml";
        run(generator.args(options.split(' ')).current_dir(fixture.folder())).await?;
        let mut program = python("python")?;
        program.arg("-B").arg(Path::new(PROGRAMS).join("calls.py")).env("PYTHONPATH", fixture.folder());
        scene.run(&mut program).await
    });
}

#[test]
fn the_description_is_valid() {
    run_test(async |fixture| {
        let mut node = Fleet::new(fixture).proxy_of(&free_address()?, &free_address()?, &[], &["--rest"])?;
        node.ready().await?;
        save_description(fixture, node.address()).await?;
        let told = run(python("openapi-spec-validator")?.arg("openapi.json").current_dir(fixture.folder())).await?;
        ensure!(told.contains("OK"), "{told}");
        Ok(())
    });
}
