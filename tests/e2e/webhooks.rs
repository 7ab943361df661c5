//! Hubs behind webhooks: the documented back ends with official clients, and misbehaving back ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path as UrlPath;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet, Proxy, stop};
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, run_test, run_waiting_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;
use trunkline_tests::harness::tools::python;

use crate::fleet::{FleetScene, NAMES};

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

#[test]
fn a_back_end_with_another_key_refuses_what_is_signed_by_this_one() {
    run_test(async |fixture| {
        let scene = Scene::start(fixture, in_node(fixture)?, "another key than the one of the proxy").await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &scene.proxy.url("/chat")).open().await?;
        let error = client.invoke_failing("Add", json!([2, 3])).await?;
        ensure!(error.contains("Invocation failed, status code 401."), "{error}");
        Ok(())
    });
}

/// Answers each request as its path demands, mostly incorrectly.
async fn misbehave(mut socket: TcpStream, elsewhere: &str) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let event = head.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let small = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = match event.as_str() {
        "Hang" => return std::future::pending().await,
        "CutBeforeHead" => return Ok(()),
        "CutInBody" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"type\":3".to_owned(),
        "NoHttp" => "220 mail.example ESMTP\r\n".to_owned(),
        "Garbage" => small("<html>no completion</html>"),
        "TooMuch" => small(&"x".repeat(3000)),
        // Body without an announced length.
        "Endless" => format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(3000)),
        "Redirect" => format!("HTTP/1.1 307 Elsewhere\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n"),
        "Drip" => {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await?;
            loop {
                socket.write_all(b" ").await?;
                // sleep: slow body, as the path demands
                sleep(Duration::from_millis(50)).await;
            }
        }
        // Announces the close, because otherwise the next request could race with it.
        _ => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned(),
    };
    socket.write_all(answer.as_bytes()).await?;
    Ok(socket.shutdown().await?)
}

#[test]
fn back_ends_that_misbehave_cost_a_call_each_and_nobody_else() {
    run_test(async |fixture| {
        let (listener, elsewhere) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (own, other) = (listener.local_addr()?, elsewhere.local_addr()?.to_string());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let other = other.clone();
                tokio::spawn(async move { misbehave(socket, &other).await });
            }
        });
        let webhooks = ["bad", "good"].map(|hub| format!("{hub}=http://{own}/{{event}}"));
        let [bad, good] = &webhooks;
        let limits = ["--webhook-timeout", "2", "--webhook-answer-max-bytes", "2000", "--webhook-in-flight-max", "2"];
        let arguments = [&["--upstream-webhook", bad, "--upstream-webhook", good], &limits[..]].concat();
        let mut proxy = Fleet::new(fixture).proxy_of(&free_address()?, &free_address()?, &[], &arguments)?;
        proxy.ready().await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &proxy.url("/bad")).open().await?;
        let hanging = agents.client(Kind::JsJson, &proxy.url("/bad")).open().await?;
        let undisturbed = agents.client(Kind::JsMessagePack, &proxy.url("/good")).open().await?;
        for (event, text) in [
            ("Garbage", "is not a completion of this invocation"),
            ("TooMuch", "is larger than 2000 bytes"),
            ("Endless", "is larger than 2000 bytes"),
            ("Redirect", "status code 307: redirects are not followed"),
            ("CutBeforeHead", "the connection to the server broke"),
            ("CutInBody", "the connection to the server broke"),
            ("NoHttp", "the connection to the server broke"),
        ] {
            let error = client.invoke_failing(event, json!([])).await?;
            ensure!(error.contains(text), "{event}: {error}");
        }
        let begun = Instant::now();
        let others = async {
            // Both permits of the other hub are in use.
            until(async || Ok((proxy.metrics().await?.sum("trunkline_webhook_in_flight", &[]) >= 2.0).then_some(())))
                .await?;
            for _ in 0..20 {
                undisturbed.invoke("Fine", json!([])).await?;
            }
            let took = begun.elapsed();
            ensure!(took < Duration::from_secs(2), "the calls of another hub took {took:?}");
            Ok(())
        };
        let (hung, dripped, others) =
            tokio::join!(hanging.invoke_failing("Hang", json!([])), client.invoke_failing("Drip", json!([])), others);
        others?;
        for error in [hung?, dripped?] {
            ensure!(error.contains("the server has not answered within 2 s"), "{error}");
        }
        assert_eq!(client.invoke("Fine", json!([])).await?, Value::Null, "its next call is served");
        let metrics = proxy.metrics().await?;
        let count = |outcome| metrics.sum("trunkline_webhook_requests_total", &[("hub", "bad"), ("outcome", outcome)]);
        let counts = ["malformed", "too_large", "redirect", "broken", "timeout"].map(count);
        assert_eq!(counts, [1.0, 2.0, 1.0, 3.0, 2.0]);
        let followed = tokio::time::timeout(Duration::from_millis(1), elsewhere.accept()).await;
        ensure!(followed.is_err(), "the redirect was followed");
        Ok(())
    });
}

/// Event that a back end received: its name, its headers and its body.
type Seen = (String, HeaderMap, Bytes);

/// Admits clients with the cookie `sid=ann` as `ann`, into the group `red`, and refuses all others.
fn decide(event: &str, body: &[u8]) -> (StatusCode, String) {
    if event != "connect" {
        return (StatusCode::OK, String::new());
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body["cookies"]["sid"].as_str() {
        Some("ann") => {
            let claims = [json!({ "type": "role", "value": "cook" })];
            let answer = json!({ "userId": "ann", "groups": ["red"], "claims": claims, "data": "{\"seat\": 7}" });
            (StatusCode::OK, answer.to_string())
        }
        Some("broken") => (StatusCode::OK, json!({ "user": "ann" }).to_string()),
        _ => (StatusCode::FORBIDDEN, "log in first".into()),
    }
}

/// Starts a back end that decides about each client; returns its port and what it receives.
async fn deciding_back_end() -> Result<(u16, mpsc::UnboundedReceiver<Seen>)> {
    let (sender, seen) = mpsc::unbounded_channel();
    let handle = async move |UrlPath(event): UrlPath<String>, head: HeaderMap, body: Bytes| {
        let answer = decide(&event, &body);
        drop(sender.send((event, head, body)));
        answer
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/{event}", post(handle))).await });
    Ok((port, seen))
}

#[test]
fn a_back_end_names_each_client_or_refuses_it_with_a_text_that_the_client_shows() {
    run_test(async |fixture| {
        let (port, mut seen) = deciding_back_end().await?;
        let webhook = format!("chat=http://127.0.0.1:{port}/{{event}}");
        let items = ["--webhook-connect-item", "address", "--webhook-connect-item", "header:x-app,cookie:sid"];
        let arguments = [&["--rest", "--upstream-webhook", &webhook, "--webhook-connect"], &items[..]].concat();
        let mut proxy = Fleet::new(fixture).proxy_of(&free_address()?, &free_address()?, &[], &arguments)?;
        proxy.ready().await?;
        let (agents, url) = (Agents::new(fixture), proxy.url("/chat"));
        let client = |cookie: &str| {
            let headers = json!({ "cookie": format!("other=1; sid={cookie}"), "x-app": "test" });
            agents.client(Kind::JsJson, &url).subscribe(&["Said"]).headers(headers)
        };
        let refused = format!("{:#}", client("eve").open().await.err().context("eve may not connect")?);
        ensure!(refused.contains("log in first: Status code '403'"), "{refused}");
        let failed = format!("{:#}", client("broken").open().await.err().context("the answer is wrong")?);
        ensure!(failed.contains("503"), "{failed}");
        proxy.process.wait_for_log("unknown field `user`").await?;
        for _ in ["eve", "broken"] {
            ensure!(seen.recv().await.context("an event")?.0 == "connect");
        }
        for connecting in [client("ann"), client("ann").skip_negotiation()] {
            let mut client = connecting.open().await?;
            let (event, _, body) = seen.recv().await.context("an event")?;
            let body: Value = serde_json::from_slice(&body)?;
            let expected = json!({ "type": 10, "address": "127.0.0.1", "headers": { "x-app": ["test"] },
                "cookies": { "sid": "ann" } });
            ensure!((event.as_str(), &body) == ("connect", &expected), "{event}: {body}");
            let (event, head, _) = seen.recv().await.context("an event")?;
            let header = |name: &str| head.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            assert_eq!(
                [&*event, header("x-asrs-user-id"), header("x-asrs-user-claims")],
                ["connected", "ann", "role: cook"]
            );
            assert_eq!(header("x-trunkline-client-data"), "{\"seat\": 7}");
            let back_end = BackEnd::trusted(proxy.address(), "chat", ACCESS_KEY)?;
            for path in ["/groups/red/:send", "/users/ann/:send"] {
                let sent = back_end.send(path, "Said", &json!(path)).await?;
                ensure!(sent["clients"] == 1, "{path}: {sent}");
                assert_eq!(client.expect("Said").await?, [json!(path)]);
            }
            client.close().await?;
            ensure!(seen.recv().await.context("an event")?.0 == "disconnected");
        }
        Ok(())
    });
}

/// Next event about a user within this time: the event and the user.
async fn next_user_event(
    seen: &mut mpsc::UnboundedReceiver<Seen>,
    within: Duration,
) -> Result<Option<(String, Value)>> {
    let end = Instant::now() + within;
    while let Ok(event) = timeout_at(end, seen.recv()).await {
        let (name, _, body) = event.context("the back end runs")?;
        if name == "online" || name == "offline" {
            return Ok(Some((name, serde_json::from_slice::<Value>(&body)?["userId"].clone())));
        }
    }
    Ok(None)
}

#[test]
fn users_of_two_nodes_are_online_once_and_offline_after_their_last_client_or_the_crash_of_its_node() {
    run_test(async |fixture| {
        let (port, mut seen) = deciding_back_end().await?;
        let webhook = format!("room=http://127.0.0.1:{port}/{{event}}");
        let flags = ["--upstream-webhook", &webhook, "--webhook-presence", "--webhook-presence-grace", "1"];
        let names = ["node-a", "node-b"];
        let mut scene = FleetScene::begin(fixture, &names, &flags).await?;
        scene.agrees(&names).await?;
        let agents = Agents::new(fixture);
        let urls: Vec<String> = scene.nodes.iter().map(|node| node.url("/room")).collect();
        let enter = async |node: usize, user: &str| {
            agents.client(Kind::JsJson, &urls[node]).access_token(&token::of_user(ACCESS_KEY, user)?).open().await
        };
        let (quiet, long) = (Duration::from_secs(3), Duration::from_secs(30));
        let event = |name: &str, user: &str| Some((name.to_owned(), json!(user)));
        let (mut first, mut second) = (enter(0, "ann").await?, enter(1, "ann").await?);
        ensure!(next_user_event(&mut seen, long).await? == event("online", "ann"));
        first.close().await?;
        let _ben = enter(1, "ben").await?;
        ensure!(next_user_event(&mut seen, long).await? == event("online", "ben"), "ann has another client");
        ensure!(next_user_event(&mut seen, quiet).await?.is_none());
        second.close().await?;
        ensure!(next_user_event(&mut seen, long).await? == event("offline", "ann"));
        scene.nodes[1].process.kill().await?;
        // The survivor repeats what the dead node may not have reported.
        let mut last = next_user_event(&mut seen, long).await?;
        while last == event("offline", "ann") {
            last = next_user_event(&mut seen, long).await?;
        }
        ensure!(last == event("offline", "ben"), "{last:?}");
        Ok(())
    });
}

/// Ends that a back end received: the numbers of the events of each connection.
type Ends = BTreeMap<String, Vec<String>>;

/// Notes the received events about connections until this holds: connected users and ends.
async fn until_seen(
    seen: &mut mpsc::UnboundedReceiver<Seen>,
    (begun, ended): (&mut BTreeMap<String, String>, &mut Ends),
    within: Duration,
    is_so: impl Fn(&BTreeMap<String, String>, &Ends) -> bool,
) -> Result<bool> {
    let end = Instant::now() + within;
    while !is_so(begun, ended) {
        let Ok(event) = timeout_at(end, seen.recv()).await else { return Ok(false) };
        let (name, head, _) = event.context("the back end runs")?;
        let header = |name: &str| -> Result<String> { Ok(head.get(name).context("a header")?.to_str()?.to_owned()) };
        let id = header("x-asrs-connection-id")?;
        match &*name {
            "connected" => drop(begun.insert(header("x-asrs-user-id")?, id)),
            _ => ended.entry(id).or_default().push(header("x-trunkline-event-number")?),
        }
    }
    Ok(true)
}

#[test]
fn the_clients_of_a_killed_node_are_reported_as_disconnected_and_those_of_living_nodes_are_not() {
    run_waiting_test(async |fixture| {
        let (port, mut seen) = deciding_back_end().await?;
        let webhook = format!("room=http://127.0.0.1:{port}/{{event}}");
        let mut scene =
            FleetScene::begin(fixture, &NAMES, &["--upstream-webhook", &webhook, "--webhook-lost-clients"]).await?;
        scene.agrees(&NAMES).await?;
        let (agents, mut clients) = (Agents::new(fixture), Vec::new());
        let (mut begun, mut ended) = (BTreeMap::new(), Ends::new());
        let long = Duration::from_secs(40);
        for (node, count) in [(0, 2), (1, 1), (2, 8)] {
            for number in 0..count {
                let user = token::of_user(ACCESS_KEY, &format!("{node}-{number}"))?;
                let url = scene.nodes[node].url("/room");
                clients.push(agents.client(Kind::JsJson, &url).access_token(&user).open().await?);
            }
        }
        ensure!(until_seen(&mut seen, (&mut begun, &mut ended), long, |begun, _| begun.len() == 11).await?);
        // sleep: the nodes exchange the last connections, which nothing shows
        sleep(Duration::from_secs(2)).await;
        scene.nodes[2].process.kill().await?;
        ensure!(until_seen(&mut seen, (&mut begun, &mut ended), long, |_, ended| ended.len() == 8).await?, "{ended:?}");
        // Repetitions, if there are any.
        until_seen(&mut seen, (&mut begun, &mut ended), Duration::from_secs(5), |_, _| false).await?;
        for (user, id) in &begun {
            ensure!(ended.contains_key(id) == user.starts_with("2-"), "{user}: {ended:?}");
        }
        // A node that stops reports its client itself, and the remaining node does not repeat that.
        stop(&mut scene.nodes[1].process, Signal::Terminate).await?;
        until_seen(&mut seen, (&mut begun, &mut ended), Duration::from_secs(15), |_, _| false).await?;
        ensure!(ended.get(&begun["1-0"]).is_some_and(|numbers| numbers.len() == 1), "{ended:?}");
        ensure!(ended.len() == 9 && ended.values().flatten().all(|number| number == "9007199254740991"), "{ended:?}");
        Ok(())
    });
}
