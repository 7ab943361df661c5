//! Back ends of the book's page *Live updates*, with the official client in a browser and in Node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::browser::{Browser, OFFICIAL_SCRIPT, Page};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{Fleet, Proxy};
use trunkline_tests::harness::http_client::{exchange, get};
use trunkline_tests::harness::process::Process;
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;
use trunkline_tests::harness::tools::{python, run};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src/examples/chat");
const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src");

/// Packages of the example in JavaScript: those of the test clients.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js/node_modules");

/// Key of the back end, different from the access key of the nodes.
const CHAT_KEY: &str = "q7N4xB1sV8kE2mT6wR9zC3yH5jD0gFaL";

/// Files that the page shows in full, with the language of their code block.
const SHOWN: [(&str, &str); 3] = [("public/index.html", "html"), ("chat.py", "python"), ("chat.mjs", "js")];

/// Call of a client, as a node posts it.
const CALL: &str = r#"{"type":1,"invocationId":"0","target":"Since","arguments":["red",0]}"#;

#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    Node,
    Php,
}

impl Language {
    /// Command that starts the back end at an address, as on the page.
    fn command(self, address: &str) -> Result<Command> {
        let (_, port) = address.rsplit_once(':').context("an address has a port")?;
        let mut command = match self {
            Self::Python => python("python")?,
            Self::Node => Command::new("node"),
            Self::Php => Command::new("php"),
        };
        match self {
            Self::Python => command.args(["-B", "-m", "uvicorn", "chat:app", "--port", port]),
            Self::Node => command.arg("chat.mjs").env("PORT", port),
            Self::Php => command.args(["-S", address, "-t", "public", "chat.php"]),
        };
        Ok(command)
    }
}

/// Copies the example into the folder of the test, with the script of the official client.
fn copy_example(fixture: &Fixture) -> Result<PathBuf> {
    let folder = fixture.folder().join("chat");
    for part in ["", "public"] {
        std::fs::create_dir(folder.join(part))?;
        for entry in std::fs::read_dir(Path::new(EXAMPLE).join(part))? {
            let path = entry?.path();
            if path.is_file() {
                std::fs::copy(&path, folder.join(part).join(path.file_name().context("a file has a name")?))?;
            }
        }
    }
    std::fs::copy(OFFICIAL_SCRIPT, folder.join("public/signalr.min.js"))?;
    std::os::unix::fs::symlink(PACKAGES, folder.join("node_modules"))?;
    Ok(folder)
}

/// Addresses of a node and of its back end.
struct Addresses {
    node: String,
    admin: String,
    back_end: String,
}

impl Addresses {
    fn free() -> Result<Self> {
        Ok(Self { node: free_address()?, admin: free_address()?, back_end: free_address()? })
    }
}

/// Node with a back end behind its webhook.
struct Place {
    back_end: Process,
    address: String,
    node: Proxy,
}

impl Place {
    async fn start(
        fixture: &Fixture,
        language: Language,
        folder: &Path,
        addresses: &Addresses,
        more: &[&str],
    ) -> Result<Self> {
        let Addresses { node, admin, back_end: address } = addresses;
        let mut command = language.command(address)?;
        command.current_dir(folder).env("CHAT_KEY", CHAT_KEY).env("NODES_URL", format!("http://{node}"));
        let back_end = Process::start(fixture, "back-end", command)?;
        let (webhook, origin) = (format!("chat=http://{address}/hook"), format!("http://{address}"));
        let (app_key, secret) = (format!("chat={CHAT_KEY};chat"), format!("chat={CHAT_KEY}"));
        let arguments = ["--rest", "--require-authentication", "--app-key", &app_key, "--webhook-secret", &secret];
        let hub = ["--upstream-webhook", &webhook, "--webhook-connect", "--allow-origin", &origin];
        let arguments = [&arguments[..], &hub[..], more].concat();
        let node = Fleet::new(fixture).proxy_of(node, admin, &[], &arguments)?;
        let mut place = Self { back_end, address: address.clone(), node };
        place.ready().await?;
        Ok(place)
    }

    /// Waits until the back end serves its page, and the node is ready.
    async fn ready(&mut self) -> Result<()> {
        until(async || match get(&self.address, "/").await {
            Ok(answer) if answer.status == 200 => Ok(Some(())),
            _ => {
                ensure!(self.back_end.is_running(), "the back end ended\n{}", self.back_end.log());
                Ok(None)
            }
        })
        .await?;
        self.node.ready().await
    }

    /// Opens the page of a user, whose name is given as in a query.
    async fn open(&self, browser: &Browser, name: &str) -> Result<Page> {
        let page = browser.open(name, &format!("http://{}/?name={name}&room=the%20kitchen", self.address)).await?;
        page.see("state", "Connected").await?;
        Ok(page)
    }
}

async fn send_text(page: &Page, text: &str) -> Result<()> {
    page.fill("text", text).await?;
    page.click("send").await
}

async fn shows(page: &Page, element: &str, text: &str) -> Result<()> {
    until(async || Ok((page.text(element).await? == text).then_some(()))).await
}

async fn serves_pages_and_calls(fixture: &Fixture, language: Language) -> Result<()> {
    let folder = copy_example(fixture)?;
    let place = Place::start(fixture, language, &folder, &Addresses::free()?, &[]).await?;
    calls_have_results(fixture, &place, language).await?;
    pages_see_each_other(fixture, &place).await
}

async fn pages_see_each_other(fixture: &Fixture, place: &Place) -> Result<()> {
    let browser = Browser::start(fixture)?;
    let (anna, zoe) = (place.open(&browser, "anna").await?, place.open(&browser, "Zo%C3%AB").await?);
    for page in [&anna, &zoe] {
        shows(page, "people", "Zoë, anna").await?;
    }
    send_text(&anna, "<b>hello</b>").await?;
    zoe.see("messages", "anna: <b>hello</b>").await?;
    send_text(&zoe, "Grüße").await?;
    for page in [&anna, &zoe] {
        shows(page, "messages", "anna: <b>hello</b>\nZoë: Grüße").await?;
    }
    send_text(&anna, "@Zoë psst").await?;
    zoe.see("messages", "anna, to you alone: psst").await?;
    anna.see("messages", "to Zoë alone, in 1 tabs: psst").await?;
    zoe.close().await?;
    shows(&anna, "people", "anna").await?;
    let late = place.open(&browser, "late").await?;
    shows(&late, "messages", "anna: <b>hello</b>\nZoë: Grüße").await?;
    browser.end().await
}

/// Calls with results and errors, and a repeated call.
async fn calls_have_results(fixture: &Fixture, place: &Place, language: Language) -> Result<()> {
    let agents = Agents::new(fixture);
    let url = place.node.url("/chat?room=red%2Fblue");
    let client =
        |user: &str| anyhow::Ok(agents.client(Kind::JsJson, &url).access_token(&token::of_user(CHAT_KEY, user)?));
    let mut ann = client("ann")?.subscribe(&["Said"]).open().await?;
    let ben = client("ben")?.open().await?;
    // The client is in the room that the back end named at `connect`, and later events carry the room.
    let room = "red/blue";
    assert_eq!(ann.invoke("Since", json!([room, 0])).await?, json!([]), "{language:?}");
    for (id, number) in [("first", 1), ("second", 2), ("first", 1)] {
        assert_eq!(ben.invoke("Say", json!([room, id, id])).await?, number, "{language:?}");
        assert_eq!(ann.expect("Said").await?, [json!(room), json!(number), json!("ben"), json!(id)], "{language:?}");
    }
    assert_eq!(ann.invoke("Since", json!([room, 1])).await?, json!([[2, "ben", "second"]]), "{language:?}");
    assert_eq!(ann.invoke("Whisper", json!(["nobody", "psst"])).await?, 0, "{language:?}");
    let error = ann.invoke_failing("NoSuchMethod", json!([])).await?;
    ensure!(error.contains("Invocation failed, status code 404."), "{error}");
    for query in ["", "?room=%20", "?room=red,", "?room=..", "?room=a%0Ab"] {
        let elsewhere = agents.client(Kind::JsJson, &place.node.url(&format!("/chat{query}")));
        let elsewhere = elsewhere.access_token(&token::of_user(CHAT_KEY, "eve")?).open().await;
        let refused = format!("{:#}", elsewhere.err().context("no client is admitted without a room")?);
        ensure!(refused.contains("which room?: Status code '400'"), "{language:?}, {query}: {refused}");
    }
    for (method, arguments) in wrong_arguments() {
        let error = ann.invoke_failing(method, arguments.clone()).await?;
        ensure!(error.contains(&format!("wrong arguments of {method}")), "{language:?}, {method} {arguments}: {error}");
    }
    assert_eq!(ann.invoke("Since", json!([room, 2])).await?, json!([]), "{language:?}: nothing of these was stored");
    forged_events_are_refused(&place.address, language).await
}

/// Calls that a client in the room `red/blue` may not make. As a path segment, `..` would address all clients.
fn wrong_arguments() -> Vec<(&'static str, Value)> {
    let say = [json!(["red/blue", "id"]), json!(["red/blue", "id", 1]), json!(["red/blue", ["id"], "text"])];
    let rooms = [json!(["green", "id", "text"]), json!([["red/blue"], "id", "text"]), json!([null, "id", "text"])];
    let since = [json!([]), json!(["red/blue", "0"]), json!(["red/blue", -1]), json!(["red/blue", 0.5])];
    let more = [json!(["red/blue", true]), json!(["red/blue", null]), json!(["red/blue", 0, 0])];
    let whisper = [json!(["..", "psst"]), json!([["ann"], "psst"]), json!(["ann", { "a": 1 }]), json!(["", "psst"])];
    let say = say.into_iter().chain(rooms).map(|arguments| ("Say", arguments));
    let since = since.into_iter().chain(more).map(|arguments| ("Since", arguments));
    say.chain(since).chain(whisper.into_iter().map(|arguments| ("Whisper", arguments))).collect()
}

/// Only texts of 1 to 64 characters without control characters are names.
async fn names_are_checked(back_end: &str, language: Language) -> Result<()> {
    let long = "x".repeat(65);
    let texts = ["", " ", "ann\n", "a\u{7}b", "a\u{85}b", ".", "..", &long];
    let values = texts.map(|text| json!({ "name": text })).into_iter();
    let others = [json!(1), json!(null), json!(true), json!(["ann"]), json!({ "a": "b" })];
    let bodies = values.chain(others.map(|name| json!({ "name": name }))).chain([json!({}), json!([]), json!(["ann"])]);
    let log_in = async |body: &Value| {
        let headers = [("content-type", "application/json")];
        exchange(back_end, Method::POST, "/login", &headers, Bytes::from(body.to_string())).await
    };
    for body in bodies {
        let answer = log_in(&body).await?;
        ensure!(answer.status == StatusCode::BAD_REQUEST, "{language:?}, {body}: {} {}", answer.status, answer.body);
    }
    for name in ["ann", "Zoë", "Doe, John", "👩‍💻", &long[1..]] {
        let answer = log_in(&json!({ "name": name })).await?;
        ensure!(answer.status == StatusCode::OK, "{language:?}, {name}: {} {}", answer.status, answer.body);
    }
    Ok(())
}

/// Prints the claims of an event in each language, whose headers are in the environment.
impl Language {
    fn claims_of(self, folder: &Path, headers: &[(&str, String)]) -> Result<Command> {
        let mut command = match self {
            Self::Python => python("python")?,
            Self::Node => Command::new("node"),
            Self::Php => Command::new("php"),
        };
        match self {
            Self::Python => command.args(["-B", "-c", CLAIMS_IN_PYTHON]),
            Self::Node => command.args(["--input-type=module", "-e", CLAIMS_IN_NODE]),
            Self::Php => command.args(["-r", CLAIMS_IN_PHP]),
        };
        let headers: serde_json::Map<_, _> =
            headers.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
        command.current_dir(folder).env("CHAT_KEY", CHAT_KEY).env("BODY", CALL);
        command.env("HEADERS", json!(headers).to_string());
        Ok(command)
    }
}

const CLAIMS_IN_PYTHON: &str = "import json, os, nodes
headers = [(name.encode(), value.encode()) for name, value in json.loads(os.environ['HEADERS']).items()]
event = nodes.read(headers, os.environ['BODY'].encode())
print(json.dumps([event['claims'], event['category'], event['body']['target']]))";

const CLAIMS_IN_NODE: &str = "import { read } from './nodes.mjs';
const headers = Object.entries(JSON.parse(process.env.HEADERS));
const bytes = headers.map(([name, value]) => [name, Buffer.from(value).toString('latin1')]);
const { claims, category, body } = read(Object.fromEntries(bytes), Buffer.from(process.env.BODY));
console.log(JSON.stringify([claims, category, body.target]));";

const CLAIMS_IN_PHP: &str = "require 'nodes.php';
foreach (json_decode(getenv('HEADERS'), true) as $name => $value) {
    $key = strtoupper(strtr($name, '-', '_'));
    $_SERVER[$key === 'CONTENT_TYPE' ? $key : \"HTTP_$key\"] = $value;
}
['claims' => $claims, 'category' => $category, 'body' => $body] = read(getenv('BODY'));
echo json_encode([$claims, $category, $body['target']]);";

#[test]
fn claims_are_pairs_in_each_language() {
    run_test(async |fixture| {
        let folder = copy_example(fixture)?;
        let text = "role: cook, name: Doe, John, nick: x%2C role: admin, city: Zürich, empty: ";
        let pairs = json!([
            ["role", "cook"],
            ["name", "Doe, John"],
            ["nick", "x, role: admin"],
            ["city", "Zürich"],
            ["empty", ""]
        ]);
        for (text, pairs) in [(text, pairs), ("", json!([]))] {
            let headers = signed_call(0, Some("red"), text)?;
            for language in [Language::Python, Language::Node, Language::Php] {
                let printed = run(&mut language.claims_of(&folder, &headers)?).await?;
                let printed: Value = serde_json::from_str(&printed)?;
                assert_eq!(printed, json!([pairs, "messages", "Since"]), "{language:?}");
            }
        }
        Ok(())
    });
}

/// Headers of [`CALL`], with client data and claims, signed some seconds ago.
fn signed_call(age_s: u64, data: Option<&str>, claims: &str) -> Result<Vec<(&'static str, String)>> {
    let mut headers = vec![
        ("x-trunkline-signature", signature(age_s, data, claims)?),
        ("x-asrs-connection-id", "id".into()),
        ("x-asrs-hub", "chat".into()),
        ("x-asrs-category", "messages".into()),
        ("x-asrs-event", "Since".into()),
        ("x-trunkline-event-number", "0".into()),
        ("content-type", "application/json".into()),
        ("x-asrs-user-claims", claims.into()),
    ];
    headers.extend(data.map(|data| ("x-trunkline-client-data", data.into())));
    Ok(headers)
}

/// Signature of [`CALL`] with client data and claims, made some seconds ago.
fn signature(age_s: u64, data: Option<&str>, claims: &str) -> Result<String> {
    let at = (token::in_seconds(0)? - age_s).to_string();
    let values = [at.as_str(), "id", "chat", "messages", "Since", "0", "", claims, ""];
    let lines: Vec<_> = values.into_iter().chain([data.unwrap_or_default(), "application/json", CALL]).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, CHAT_KEY.as_bytes());
    let hex: String =
        hmac::sign(&key, lines.join("\n").as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("t={at},sha256={hex}"))
}

/// Client data can't be changed, added or removed, and an event can't be posted again later.
async fn forged_events_are_refused(back_end: &str, language: Language) -> Result<()> {
    let (red, blue) = (Some("red"), Some("blue"));
    let cases = [
        (0, red, red, StatusCode::OK, ""),
        (0, red, blue, StatusCode::UNAUTHORIZED, "the signature is wrong"),
        (0, None, red, StatusCode::UNAUTHORIZED, "the signature is wrong"),
        (0, red, None, StatusCode::UNAUTHORIZED, "the signature is wrong"),
        (301, red, red, StatusCode::UNAUTHORIZED, "the time is off: the node signed at 20"),
    ];
    for (age_s, signed, sent, expected, text) in cases {
        let mut headers = signed_call(age_s, signed, "")?;
        headers.retain(|(name, _)| *name != "x-trunkline-client-data");
        headers.extend(sent.map(|data| ("x-trunkline-client-data", data.to_string())));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = exchange(back_end, Method::POST, "/hook", &headers, Bytes::from_static(CALL.as_bytes())).await?;
        let case = (age_s, signed, sent);
        ensure!(answer.status == expected, "{language:?}, {case:?}: {} {}", answer.status, answer.body);
        ensure!(answer.body.starts_with(text) || text.is_empty(), "{language:?}, {case:?}: {}", answer.body);
    }
    names_are_checked(back_end, language).await
}

#[test]
fn a_back_end_in_python_serves_pages_that_see_each_other_and_calls_with_results() {
    run_heavy_test(async |fixture| serves_pages_and_calls(fixture, Language::Python).await);
}

#[test]
fn a_back_end_in_node_serves_pages_that_see_each_other_and_calls_with_results() {
    run_heavy_test(async |fixture| serves_pages_and_calls(fixture, Language::Node).await);
}

#[test]
fn a_back_end_in_php_serves_pages_that_see_each_other_and_calls_with_results() {
    run_heavy_test(async |fixture| serves_pages_and_calls(fixture, Language::Php).await);
}

#[test]
fn a_page_that_was_away_shows_what_it_missed_once_and_in_order() {
    run_heavy_test(async |fixture| {
        let folder = copy_example(fixture)?;
        let [here, there] = [Addresses::free()?, Addresses::free()?];
        let peer = |other: &Addresses| format!("http://{}", other.admin);
        let start = async |own: &Addresses, other: &Addresses| {
            Place::start(fixture, Language::Python, &folder, own, &["--peers", &peer(other)]).await
        };
        let (mut first, second) = (start(&here, &there).await?, start(&there, &here).await?);
        let browser = Browser::start(fixture)?;
        let (anna, ben) = (first.open(&browser, "anna").await?, second.open(&browser, "ben").await?);
        for page in [&anna, &ben] {
            shows(page, "people", "anna, ben").await?;
        }
        send_text(&ben, "one").await?;
        shows(&anna, "messages", "ben: one").await?;
        first.node.process.kill().await?;
        anna.see("state", "Reconnecting").await?;
        for text in ["two", "three", "four"] {
            send_text(&ben, text).await?;
            ben.see("messages", text).await?;
        }
        send_text(&anna, "from afar").await?;
        first.node.start_again(fixture).await?;
        anna.see("state", "Connected").await?;
        ben.see("messages", "anna: from afar").await?;
        send_text(&ben, "five").await?;
        let all = "ben: one\nben: two\nben: three\nben: four\nanna: from afar\nben: five";
        for page in [&anna, &ben] {
            shows(page, "messages", all).await?;
        }
        browser.end().await
    });
}

/// Closes all connections of a user by REST.
async fn close_user(node: &str, user: &str) -> Result<()> {
    let token = token::signed(CHAT_KEY, &json!({ "aud": "http://any/api/hubs/chat/" }))?;
    let authorization = format!("Bearer {token}");
    let path = format!("/api/hubs/chat/users/{user}/:closeConnections?reason=lunch");
    let headers = [("authorization", authorization.as_str())];
    let answer = exchange(node, Method::POST, &path, &headers, Bytes::new()).await?;
    ensure!(answer.status == StatusCode::NO_CONTENT, "{} {}", answer.status, answer.body);
    Ok(())
}

#[test]
fn a_page_shows_refusals_closes_and_messages_that_are_not_sent() {
    run_heavy_test(async |fixture| {
        let folder = copy_example(fixture)?;
        let addresses = Addresses::free()?;
        let place = Place::start(fixture, Language::Python, &folder, &addresses, &[]).await?;
        let browser = Browser::start(fixture)?;
        let refused = browser.open("cleo", &format!("http://{}/?name=cleo&room=", place.address)).await?;
        refused.see("state", "Closed: which room?").await?;
        let anna = place.open(&browser, "anna").await?;
        send_text(&anna, &"x".repeat(2 * 1024 * 1024)).await?;
        send_text(&anna, "after it").await?;
        anna.see("messages", "not sent: xxx").await?;
        anna.see("messages", "anna: after it").await?;
        close_user(&addresses.node, "anna").await?;
        anna.see("state", "Closed: Server returned an error on close: lunch").await?;
        send_text(&anna, "meanwhile").await?;
        anna.click("connect").await?;
        anna.see("messages", "anna: meanwhile").await?;
        browser.end().await
    });
}

/// Appends code of the page's section about the stop button to the files of a copy, as readers do.
fn add_stop_button(folder: &Path) -> Result<()> {
    let page = std::fs::read_to_string(Path::new(BOOK).join("live-updates.md"))?;
    let (_, section) = page.split_once("### A stop button\n").context("the section of the stop button")?;
    let (section, _) = section.split_once("\n### ").context("the next section")?;
    let [python] = blocks(section, "python")[..] else { bail!("one block in Python") };
    let [node, browser] = blocks(section, "js")[..] else { bail!("two blocks in JavaScript") };
    for (name, code, end) in
        [("chat.py", python, ""), ("chat.mjs", node, ""), ("public/index.html", browser, "</script>\n")]
    {
        let path = folder.join(name);
        let mut text = std::fs::read_to_string(&path)?;
        text.insert_str(text.rfind(end).context("the end of the code")?, code);
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// A page in two rooms; in one of them an answer of many pieces is stopped.
async fn a_second_room_and_a_stop_button(fixture: &Fixture, language: Language) -> Result<()> {
    let folder = copy_example(fixture)?;
    add_stop_button(&folder)?;
    let place = Place::start(fixture, language, &folder, &Addresses::free()?, &[]).await?;
    let browser = Browser::start(fixture)?;
    let open = async |name: &str, rooms: &str| {
        let page = browser.open(name, &format!("http://{}/?name={name}&room={rooms}", place.address)).await?;
        page.see("state", "Connected").await?;
        anyhow::Ok(page)
    };
    let (anna, ben) = (open("anna", "kitchen,garden").await?, open("ben", "garden").await?);
    shows(&ben, "people", "anna, ben").await?;
    shows(&anna, "people", "anna").await?;
    send_text(&ben, "hi").await?;
    anna.see("messages", "garden – ben: hi").await?;
    anna.fill("text", &"word ".repeat(200)).await?;
    anna.click("Ask").await?;
    anna.see("messages", "kitchen – assistant: word").await?;
    anna.click("Stop").await?;
    send_text(&anna, "stopped").await?;
    anna.see("messages", "kitchen – anna: stopped").await?;
    ben.fill("text", "why").await?;
    ben.click("Ask").await?;
    anna.see("messages", "garden – assistant: why").await?;
    let text = anna.text("messages").await?;
    let (_, after) = text.split_once("kitchen – anna: stopped").context("the message")?;
    ensure!(!after.contains("kitchen – assistant"), "{language:?}: the answer went on:\n{text}");
    shows(&ben, "messages", "ben: hi\nassistant: You\nassistant: asked:\nassistant: why").await?;
    browser.end().await
}

#[test]
fn clients_in_python_show_the_room_and_come_back_with_new_tokens() {
    run_heavy_test(async |fixture| {
        let folder = copy_example(fixture)?;
        let mut place = Place::start(fixture, Language::Python, &folder, &Addresses::free()?, &[]).await?;
        let page = format!("http://{}", place.address);
        let start = |name: &str| {
            let mut client = python("python")?;
            client.arg(folder.join("client.py")).args([&page, name, "the kitchen"]);
            Process::start(fixture, name, client)
        };
        let mut ann = start("ann")?;
        ann.wait_for_lines("here: ann", 1).await?;
        let mut ben = start("ben")?;
        ann.wait_for_lines("ben: hello from Python", 1).await?;
        place.node.process.kill().await?;
        place.node.start_again(fixture).await?;
        for client in [&mut ann, &mut ben] {
            client.wait_for_lines("ben: hello from Python", 2).await?;
            client.wait_for_lines("ann: hello from Python", 2).await?;
        }
        Ok(())
    });
}

#[test]
fn a_second_room_and_a_stop_button_in_python() {
    run_heavy_test(async |fixture| a_second_room_and_a_stop_button(fixture, Language::Python).await);
}

#[test]
fn a_second_room_and_a_stop_button_in_node() {
    run_heavy_test(async |fixture| a_second_room_and_a_stop_button(fixture, Language::Node).await);
}

/// Makes `Since` of the back end in Python fail while a file exists.
const FAILING_SINCE: &str = "
import os

async def since_or_failure(*values):
    if os.path.exists('broken'):
        raise RuntimeError('the table is broken')
    return await since(*values)

METHODS['Since'] = since_or_failure
";

/// Stores a message as a back end does that stops before it sends.
const STORE: &str = "import sqlite3
with sqlite3.connect('chat.db') as database:
    database.execute('INSERT INTO said VALUES (?, 2, ?, ?, ?)', ('the kitchen', 'id', 'ben', 'the last one'))";

#[test]
fn a_page_shows_that_messages_can_not_be_loaded_and_finds_a_last_one_that_was_not_sent() {
    run_heavy_test(async |fixture| {
        let folder = copy_example(fixture)?;
        let chat = std::fs::read_to_string(folder.join("chat.py"))?;
        std::fs::write(folder.join("chat.py"), chat + FAILING_SINCE)?;
        std::fs::write(folder.join("broken"), "")?;
        let place = Place::start(fixture, Language::Python, &folder, &Addresses::free()?, &[]).await?;
        let browser = Browser::start(fixture)?;
        let anna = place.open(&browser, "anna").await?;
        anna.see("state", "Connected, but messages are missing: Invocation failed, status code 500.").await?;
        std::fs::remove_file(folder.join("broken"))?;
        shows(&anna, "state", "Connected").await?;
        send_text(&anna, "first").await?;
        shows(&anna, "messages", "anna: first").await?;
        run(python("python")?.args(["-c", STORE]).current_dir(&folder)).await?;
        shows(&anna, "messages", "anna: first\nben: the last one").await?;
        browser.end().await
    });
}

/// Blocks of a page in a language, without their fences.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_pages_show_the_code_of_the_files() {
    run_test(async |_stage| {
        let page = std::fs::read_to_string(Path::new(BOOK).join("live-updates.md"))?;
        let excerpts = std::fs::read_to_string(Path::new(BOOK).join("missed-messages.md"))?;
        let mut all = std::fs::read_to_string(Path::new(BOOK).join("examples/follow.mjs"))?;
        for (name, language) in SHOWN {
            let file = std::fs::read_to_string(Path::new(EXAMPLE).join(name))?;
            ensure!(blocks(&page, language).contains(&file.as_str()), "live-updates.md shows another {name}");
            all.push_str(&file);
        }
        let clients = std::fs::read_to_string(Path::new(BOOK).join("clients/python.md"))?;
        let file = std::fs::read_to_string(Path::new(EXAMPLE).join("client.py"))?;
        ensure!(blocks(&clients, "python").contains(&file.as_str()), "clients/python.md shows another client.py");
        for excerpt in ["python", "js"].iter().flat_map(|language| blocks(&excerpts, language)) {
            ensure!(all.contains(excerpt), "no file of the example has this part of missed-messages.md:\n{excerpt}");
        }
        Ok(())
    });
}
