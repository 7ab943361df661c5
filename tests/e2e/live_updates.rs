//! Back ends of the book's page *Live updates*, with the official client in a browser and in Node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, StatusCode};
use serde_json::json;
use sha2::Sha256;
use tokio::process::Command;
use trunkline_tests::harness::browser::{Browser, OFFICIAL_SCRIPT, Page};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{Fleet, Proxy};
use trunkline_tests::harness::http_client::{exchange, get};
use trunkline_tests::harness::process::Process;
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;
use trunkline_tests::harness::tools::python;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src/examples/chat");
const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src");

/// Packages of the example in JavaScript: those of the test clients.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js/node_modules");

/// Key of the back end, different from the access key of the nodes.
const CHAT_KEY: &str = "q7N4xB1sV8kE2mT6wR9zC3yH5jD0gFaL";

/// Files that the page shows in full, with the language of their code block.
const SHOWN: [(&str, &str); 4] =
    [("public/index.html", "html"), ("chat.py", "python"), ("chat.mjs", "js"), ("chat.php", "php")];

/// Call of a client, as a node posts it.
const CALL: &str = r#"{"type":1,"invocationId":"0","target":"Since","arguments":[0]}"#;

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

async fn pages_see_each_other(fixture: &Fixture, language: Language) -> Result<()> {
    let folder = copy_example(fixture)?;
    let place = Place::start(fixture, language, &folder, &Addresses::free()?, &[]).await?;
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
async fn calls_have_results(fixture: &Fixture, language: Language) -> Result<()> {
    let folder = copy_example(fixture)?;
    let place = Place::start(fixture, language, &folder, &Addresses::free()?, &[]).await?;
    let agents = Agents::new(fixture);
    let url = place.node.url("/chat?room=red%2Fblue");
    let client =
        |user: &str| anyhow::Ok(agents.client(Kind::JsJson, &url).access_token(&token::of_user(CHAT_KEY, user)?));
    let mut ann = client("ann")?.subscribe(&["Said"]).open().await?;
    let ben = client("ben")?.open().await?;
    // The client is in the room that the back end named at `connect`, and later events carry the room.
    assert_eq!(ann.invoke("Since", json!([0])).await?, json!([]), "{language:?}");
    for (id, number) in [("first", 1), ("second", 2), ("first", 1)] {
        assert_eq!(ben.invoke("Say", json!([id, id])).await?, number, "{language:?}");
        assert_eq!(ann.expect("Said").await?, [json!(number), json!("ben"), json!(id)], "{language:?}");
    }
    assert_eq!(ann.invoke("Since", json!([1])).await?, json!([[2, "ben", "second"]]), "{language:?}");
    assert_eq!(ann.invoke("Whisper", json!(["nobody", "psst"])).await?, 0, "{language:?}");
    let error = ann.invoke_failing("NoSuchMethod", json!([])).await?;
    ensure!(error.contains("Invocation failed, status code 404."), "{error}");
    let elsewhere = agents.client(Kind::JsJson, &place.node.url("/chat?room=%20"));
    let elsewhere = elsewhere.access_token(&token::of_user(CHAT_KEY, "eve")?).open().await;
    let refused = format!("{:#}", elsewhere.err().context("no client is admitted without a room")?);
    ensure!(refused.contains("which room?: Status code '403'"), "{language:?}: {refused}");
    // As a path segment, `..` would address all clients of the hub.
    let error = ann.invoke_failing("Whisper", json!(["..", "psst"])).await?;
    ensure!(error.contains("Invocation failed, status code 500."), "{language:?}: {error}");
    forged_events_are_refused(&place.address, language).await
}

/// Signature of [`CALL`] with client data, made some seconds ago.
fn signature(age_s: u64, data: Option<&str>) -> Result<String> {
    let at = (token::in_seconds(0)? - age_s).to_string();
    let values = [at.as_str(), "id", "chat", "messages", "Since", "0", "", "", ""];
    let lines: Vec<_> = values.into_iter().chain(data).chain([CALL]).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(CHAT_KEY.as_bytes()).ok().context("any key will do")?;
    mac.update(lines.join("\n").as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("t={at},sha256={hex}"))
}

/// Client data can't be changed, added or removed, and an event can't be posted again later.
async fn forged_events_are_refused(back_end: &str, language: Language) -> Result<()> {
    let (red, blue) = (Some("red"), Some("blue"));
    let cases = [
        (0, red, red, StatusCode::OK),
        (0, red, blue, StatusCode::UNAUTHORIZED),
        (0, None, red, StatusCode::UNAUTHORIZED),
        (0, red, None, StatusCode::UNAUTHORIZED),
        (301, red, red, StatusCode::UNAUTHORIZED),
    ];
    for (age_s, signed, sent, expected) in cases {
        let signature = signature(age_s, signed)?;
        let mut headers = vec![("x-trunkline-signature", signature.as_str()), ("x-asrs-connection-id", "id")];
        headers.extend([("x-asrs-hub", "chat"), ("x-asrs-category", "messages"), ("x-asrs-event", "Since")]);
        headers.extend([("x-trunkline-event-number", "0"), ("content-type", "application/json")]);
        headers.extend(sent.map(|data| ("x-trunkline-client-data", data)));
        let answer = exchange(back_end, Method::POST, "/hook", &headers, Bytes::from_static(CALL.as_bytes())).await?;
        let case = (age_s, signed, sent);
        ensure!(answer.status == expected, "{language:?}, {case:?}: {} {}", answer.status, answer.body);
    }
    Ok(())
}

#[test]
fn pages_of_a_back_end_in_python_see_each_other() {
    run_heavy_test(async |fixture| pages_see_each_other(fixture, Language::Python).await);
}

#[test]
fn pages_of_a_back_end_in_node_see_each_other() {
    run_heavy_test(async |fixture| pages_see_each_other(fixture, Language::Node).await);
}

#[test]
fn pages_of_a_back_end_in_php_see_each_other() {
    run_heavy_test(async |fixture| pages_see_each_other(fixture, Language::Php).await);
}

#[test]
fn calls_of_a_back_end_in_python_have_results() {
    run_test(async |fixture| calls_have_results(fixture, Language::Python).await);
}

#[test]
fn calls_of_a_back_end_in_node_have_results() {
    run_test(async |fixture| calls_have_results(fixture, Language::Node).await);
}

#[test]
fn calls_of_a_back_end_in_php_have_results() {
    run_test(async |fixture| calls_have_results(fixture, Language::Php).await);
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
        let mut all = String::new();
        for (name, language) in SHOWN {
            let file = std::fs::read_to_string(Path::new(EXAMPLE).join(name))?;
            ensure!(blocks(&page, language).contains(&file.as_str()), "live-updates.md shows another {name}");
            all.push_str(&file);
        }
        for excerpt in ["python", "js"].iter().flat_map(|language| blocks(&excerpts, language)) {
            ensure!(all.contains(excerpt), "no file of the example has this part of missed-messages.md:\n{excerpt}");
        }
        Ok(())
    });
}
