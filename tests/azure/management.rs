//! Azure's Management SDK with the REST data plane: the real SDK, and its recorded requests.

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use http::Method;
use serde_json::{Value as Json, json};
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::Kind;
use trunkline_tests::harness::dotnet::{ServiceTransport, azure_sdk_folder, run_management_test};
use trunkline_tests::harness::http_client::HttpConnection;
use trunkline_tests::harness::scenario::run_test;

use crate::dial_in::{DialIn, KEY, signed};
use crate::guest::{Guest, Host, Library};
use crate::scene::{HUB, Scene, join_with};
use crate::scripted::Scripted;

/// Lines that the SDK's program prints, besides the negotiated token.
const OUTCOMES: [&str; 25] = [
    "all: done",
    "all except: done",
    "client: done",
    "clients: done",
    "user: done",
    "users: done",
    "join: done",
    "join, odd name: done",
    "group: done",
    "groups: done",
    "group except: done",
    "leave: done",
    "leave all: done",
    "user joins: done",
    "user joins for 30 s: done",
    "user in group: True",
    "user leaves: done",
    "user leaves all: done",
    "connection exists: True",
    "nobody exists: False",
    "user exists: True",
    "group exists: False",
    "close: done",
    "close nobody: done",
    "healthy: True",
];

/// Texts that its target receives, in order; its other client is the second of two users.
const OF_TARGET: [&str; 7] = ["to all", "to one", "to two", "to a user", "to two users", "to a group", "to two groups"];
const OF_OTHER: [&str; 3] = ["to all", "to all but two", "to two users"];

/// The other user, URL-encoded, as the program names it.
const OTHER_USER: &str = "bob%20smith%2F%C3%A5";

/// Part of the close error of its target: reasons from app servers are only for their own clients with detailed errors.
fn reason_of(transport: ServiceTransport) -> &'static str {
    match transport {
        ServiceTransport::Transient => "time to go",
        ServiceTransport::Persistent => "closed with an error",
    }
}

/// Lets the SDK manage a hub of a real app, and checks its output and what the app's clients receive.
fn manages(transport: ServiceTransport, kinds: [Kind; 2]) {
    run_management_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open_with(fixture, &["--rest"]).await?, Host::new(fixture, dotnet));
        let app = host.app(&dial_in, "one", &[]).await?;
        let [kind, of_other] = kinds;
        let mut target = host.invite(Library::Js(kind), &app, "ann").await?;
        let mut other = host.invite(Library::Js(of_other), &app, OTHER_USER).await?;
        let printed = dotnet.manage(fixture, transport, &dial_in.connection_string(), HUB, &target.id()?).await?;
        for outcome in OUTCOMES {
            ensure!(printed.iter().any(|line| line == outcome), "{outcome} is not among {printed:#?}");
        }
        ensure!(printed.len() == OUTCOMES.len() + 1, "{printed:#?}");
        for text in OF_TARGET {
            let came = target.expect("Message").await?;
            ensure!(came == text, "{came} came where {text} was due");
        }
        let Guest::Js(mut target) = target else { anyhow::bail!("a JavaScript client") };
        let reason = target.closed().await?.context("the SDK's close is an error for the client")?;
        ensure!(reason.contains(reason_of(transport)), "{reason}");
        let came = other.until_fence().await?;
        ensure!(came == OF_OTHER, "{came:?}");
        // A client can connect with what it negotiated.
        let negotiated = printed.iter().find_map(|line| line.strip_prefix("negotiate: ")).context("no negotiate")?;
        let (url, token) = negotiated.split_once(' ').context("a URL and a token")?;
        let guest = host.agents().client(kind, url).access_token(token).open().await?;
        let who = guest.invoke("WhoAmI", json!([])).await?;
        ensure!(who["userId"] == "ann", "{who}");
        let requests = dial_in.node.metrics().await?.sum("trunkline_rest_requests_total", &[]);
        let is_by_rest = transport == ServiceTransport::Transient;
        ensure!((requests > 20.0) == is_by_rest, "{requests} requests by {transport:?}");
        Ok(())
    });
}

#[test]
fn the_management_sdk_does_everything_by_requests() {
    manages(ServiceTransport::Transient, [Kind::JsMessagePack, Kind::JsJson]);
}

#[test]
fn the_management_sdk_does_everything_by_a_server_connection_of_its_own() {
    // With this transport, the SDK encodes messages only for JSON clients.
    manages(ServiceTransport::Persistent, [Kind::JsJson; 2]);
}

struct Recorded {
    method: Method,
    target: String,
    body: String,
    claims: Json,
}

/// Data plane requests in a recording.
fn recorded() -> Result<Option<Vec<Recorded>>> {
    let Some(folder) = azure_sdk_folder() else { return Ok(None) };
    let path = folder.join("records/20-management-transient.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut requests = Vec::new();
    for line in text.lines() {
        let line: Json = serde_json::from_str(line)?;
        let Some((method, target)) = line["http"].as_str().and_then(|line| line.split_once(' ')) else { continue };
        if target.starts_with("/api/") {
            let body = line["body"].as_str().unwrap_or_default().to_owned();
            let claims = line["token"]["claims"].clone();
            requests.push(Recorded { method: method.parse()?, target: target.into(), body, claims });
        }
    }
    Ok(Some(requests))
}

/// Connection id in the recording.
const RECORDED_ID: &str = "AQ0kVSCuyLY_35D8qwwFng";

/// Status that the reference's table lists for a request, and the code of an error.
fn due(method: &Method, path: &str, nobody_in_group: bool) -> (u16, &'static str) {
    let rest = path.trim_start_matches("/api/hubs/bench");
    let names: Vec<&str> = rest.split('/').skip(1).collect();
    match (method.as_str(), names.as_slice()) {
        ("POST", _) => (202, ""),
        ("HEAD", ["connections", "nobody"]) | ("DELETE", ["connections", "nobody"]) => {
            (404, "Warning.Connection.NotExisted")
        }
        ("HEAD", ["groups", _]) if nobody_in_group => (404, "Warning.Group.NotExisted"),
        ("DELETE", ["users", ..]) => (204, ""),
        _ => (200, ""),
    }
}

impl Recorded {
    /// Repeats the request for another connection, with a valid token and chunked like the SDK's, without a length.
    async fn ask_again(&self, dial_in: &DialIn, id: &str) -> Result<(u16, String)> {
        let target = self.target.replace(RECORDED_ID, id);
        let mut claims = self.claims.clone();
        let claims_of = claims.as_object_mut().context("claims")?;
        claims_of.retain(|name, _| !["nbf", "exp", "iat"].contains(&name.as_str()));
        let audience = claims["aud"].as_str().context("an audience")?.replace(RECORDED_ID, id);
        claims["aud"] = json!(audience);
        let token = signed(KEY, &claims)?;
        let chunks: Vec<_> = [Ok::<_, std::io::Error>(self.body.clone())].into();
        let back_end = BackEnd::with_token(dial_in.address(), HUB, &token);
        let headers =
            [("authorization", back_end.authorization()), ("content-type", "application/json; charset=utf-8")];
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        let mut connection = HttpConnection::open(dial_in.address()).await?;
        let answer = connection.send(self.method.clone(), &target, &headers, body).await?;
        let code = answer.headers().get("x-ms-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        Ok((answer.status().as_u16(), code.to_owned()))
    }
}

#[test]
fn recorded_requests_are_answered_as_the_reference_says() {
    run_test(async |fixture| {
        let Some(requests) = recorded()? else { return Ok(()) };
        let dial_in = DialIn::open_with(fixture, &["--rest"]).await?;
        let server = Scripted::dial(&dial_in, HUB, "server-a", 1).await?;
        let mut scene = Scene { dial_in, server };
        let mut ann = scene.join_as("ann").await?;
        ensure!(requests.len() == 28, "{}", requests.len());
        let mut has_left = false;
        for request in &requests {
            let path = request.target.split('?').next().unwrap_or_default();
            has_left |= request.method == Method::DELETE && path.ends_with("/groups");
            let answer = request.ask_again(&scene.dial_in, &ann.id).await?;
            let due = due(&request.method, path, has_left);
            ensure!((answer.0, answer.1.as_str()) == due, "{} {}: {answer:?}", request.method, request.target);
        }
        for text in OF_TARGET {
            let came = ann.text().await?;
            ensure!(came == text, "{came} came where {text} was due");
        }
        let ending = ann.socket.ending().await?;
        ensure!(ending.text.contains("time to go"), "{ending:?}");
        Ok(())
    });
}

#[test]
fn a_token_of_the_data_plane_leads_a_client_to_the_dial_in() {
    run_test(async |fixture| {
        let dial_in = DialIn::open_with(fixture, &["--rest"]).await?;
        let server = Scripted::dial(&dial_in, HUB, "server-a", 1).await?;
        let mut scene = Scene { dial_in, server };
        let back_end = BackEnd::trusted(scene.dial_in.address(), HUB, KEY)?;
        let told = back_end.ask(Method::POST, "/:generateToken?userId=ann", &Json::Null).await?.json()?;
        let [url, token] = ["url", "token"].map(|name| told[name].as_str().unwrap_or_default().to_owned());
        let expected = format!("http://{}/client/?hub={HUB}", scene.dial_in.address());
        ensure!(url == expected, "{url}");
        let mut ann = join_with(&scene.dial_in, &mut scene.server, "json", &token).await?;
        let delivery = back_end.send("/users/ann/:send", "Message", &json!("to ann")).await?;
        ensure!(delivery["clients"] == 1, "{delivery}");
        ensure!(ann.text().await? == "to ann");
        Ok(())
    });
}
