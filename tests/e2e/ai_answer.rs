//! Back ends of the book's page *Stream an AI answer*: no token is lost or shown twice, whatever breaks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::sleep;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::browser::{Browser, OFFICIAL_SCRIPT, Page};
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet, Proxy};
use trunkline_tests::harness::http_client::{exchange, get};
use trunkline_tests::harness::nats::Nats;
use trunkline_tests::harness::process::Process;
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::{Fixture, is_full, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::python;

const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/book/src");

/// Packages of the example in JavaScript: those of the test clients.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js/node_modules");

/// Files of the example, those copied from other examples, and the helper for the official client.
const FILES: [&str; 7] = [
    "answer/answer.py",
    "answer/answer.mjs",
    "answer/node.toml",
    "answer/public/index.html",
    "chat/nodes.py",
    "chat/nodes.mjs",
    "follow.mjs",
];

/// Key of the back end, different from the access key of the nodes.
const CHAT_KEY: &str = "q7N4xB1sV8kE2mT6wR9zC3yH5jD0gFaL";

/// Address of the back end in the files of the example.
const SHOWN_ADDRESS: &str = "127.0.0.1:7071";

/// Tokens of an answer, and the model's pause before each while something breaks, and afterwards.
const TOKENS: u64 = 2000;
const PAUSE_MS: u64 = 30;
const PAUSE_MS_FULL: u64 = 90;
const SHORT_PAUSE_MS: u64 = 1;

/// Length of a network cut, and of a long one.
const CUT: Duration = Duration::from_secs(3);
const CUT_FULL: Duration = Duration::from_secs(20);

/// Time in which a back end sends several chunks.
const CHUNKS: Duration = Duration::from_millis(500);

/// Language of a back end.
#[derive(Debug, Clone, Copy)]
enum Writer {
    Python,
    Node,
}

impl Writer {
    /// Command that starts the back end at an address, as on the page.
    fn command(self, address: &str) -> Result<Command> {
        let (_, port) = address.rsplit_once(':').context("an address has a port")?;
        let mut command = match self {
            Self::Python => python("python")?,
            Self::Node => Command::new("node"),
        };
        match self {
            Self::Python => command.args(["-B", "-m", "uvicorn", "answer:app", "--port", port]),
            Self::Node => command.arg("answer.mjs").env("PORT", port),
        };
        Ok(command)
    }
}

/// Text of a whole answer.
fn whole(question: &str) -> String {
    let numbers: String = (1..=TOKENS).map(|number| format!(" {number}")).collect();
    format!("{question} I count:{numbers}")
}

/// A node and a back end, started as on the page.
struct AnswerScene<'a> {
    fixture: &'a Fixture,
    writer: Writer,
    folder: PathBuf,
    address: String,
    back_end: Process,
    node: Proxy,
}

impl<'a> AnswerScene<'a> {
    /// Starts both. The node gets these arguments as well.
    async fn start(fixture: &'a Fixture, writer: Writer, pause_ms: u64, more: &[&str]) -> Result<Self> {
        let (folder, address) = (fixture.folder().join("my-answers"), free_address()?);
        std::fs::create_dir_all(folder.join("public"))?;
        for name in FILES {
            let text = std::fs::read_to_string(Path::new(BOOK).join("examples").join(name))?;
            let name = name.trim_start_matches("answer/").trim_start_matches("chat/");
            std::fs::write(folder.join(name), text.replace(SHOWN_ADDRESS, &address))?;
        }
        std::os::unix::fs::symlink(PACKAGES, folder.join("node_modules"))?;
        let (file, app_key) = (folder.join("node.toml"), format!("chat={CHAT_KEY};chat"));
        let file = file.to_str().context("a path in UTF-8")?;
        let arguments = [&["--config", file, "--app-key", &app_key], more].concat();
        let mut node = Fleet::new(fixture).proxy_of(&free_address()?, &free_address()?, &[], &arguments)?;
        node.ready().await?;
        let back_end = start_process(fixture, writer, &folder, (&address, node.address()), pause_ms)?;
        let scene = Self { fixture, writer, folder, address, back_end, node };
        scene.serves(&scene.address).await?;
        Ok(scene)
    }

    /// Kills the back end, and starts it with another pause of the model.
    async fn restart_back_end(&mut self, pause_ms: u64) -> Result<()> {
        self.back_end.kill().await?;
        self.back_end = self.start_another(&self.address, pause_ms)?;
        self.serves(&self.address).await
    }

    fn start_another(&self, address: &str, pause_ms: u64) -> Result<Process> {
        start_process(self.fixture, self.writer, &self.folder, (address, self.node.address()), pause_ms)
    }

    /// Waits until the back end serves its page.
    async fn serves(&self, address: &str) -> Result<()> {
        until(async || Ok(get(address, "/").await.is_ok_and(|answer| answer.status == 200).then_some(()))).await
    }

    /// Asks in a page of this browser.
    async fn ask(&self, browser: &Browser, question: &str) -> Result<Page> {
        let page = browser.open(question, &format!("http://{}/", self.address)).await?;
        page.fill("question", question).await?;
        page.click("ask").await?;
        page.see("state", "writing").await?;
        Ok(page)
    }

    /// Access to the group of the answer on a page, and its path.
    async fn record(&self, page: &Page) -> Result<(BackEnd, String)> {
        let url = page.url().await?;
        let (_, id) = url.split_once("?answer=").context("an id in the address")?;
        Ok((BackEnd::trusted(self.node.address(), "chat", ACCESS_KEY)?, format!("/groups/answer-{id}")))
    }

    /// Checks the end of an answer's record: its last message is the last chunk, with this outcome.
    async fn record_ends(&self, page: &Page, outcome: &str) -> Result<()> {
        let (back_end, group) = self.record(page).await?;
        let path = format!("{group}/history?last=1");
        let record = until(async || {
            let record = back_end.ask(Method::GET, &path, &Value::Null).await?.json()?;
            Ok((record["finished"] == json!(true)).then_some(record))
        })
        .await?;
        let arguments = &record["items"][0]["arguments"];
        let is_last = record["newest"].as_str().context("a position")?.ends_with(&format!("-{}", arguments[0]));
        ensure!(is_last && arguments[2] == outcome, "{:?}: {record}", self.writer);
        Ok(())
    }
}

fn start_process(
    fixture: &Fixture,
    writer: Writer,
    folder: &Path,
    (address, node): (&str, &str),
    pause_ms: u64,
) -> Result<Process> {
    let mut command = writer.command(address)?;
    command.current_dir(folder).env("CHAT_KEY", CHAT_KEY).env("NODES_URL", format!("http://{node}"));
    command.env("TOKENS", TOKENS.to_string()).env("PAUSE_MS", pause_ms.to_string());
    Process::start(fixture, "back-end", command)
}

/// Waits until the page shows more of the answer, which must not have ended.
async fn goes_on(page: &Page) -> Result<()> {
    let before = page.text("answer").await?.len();
    until(async || {
        let (text, state) = (page.text("answer").await?, page.text("state").await?);
        ensure!(!["finished", "stopped", "failed"].contains(&state.as_str()), "it ended before: {state}");
        Ok((text.len() > before && state == "writing").then_some(()))
    })
    .await
}

/// Waits for the end of an answer, and returns its text.
async fn text_at_end(page: &Page, outcome: &str) -> Result<String> {
    page.see("state", outcome).await?;
    page.text("answer").await
}

/// Two browsers show an answer, and one of them stops it.
async fn an_answer_is_stopped(scene: &AnswerScene<'_>, browsers: [&Browser; 2]) -> Result<()> {
    let first = scene.ask(browsers[0], "How?").await?;
    let second = browsers[1].open("How?", &first.url().await?).await?;
    goes_on(&second).await?;
    second.click("stop").await?;
    let texts = [text_at_end(&first, "stopped").await?, text_at_end(&second, "stopped").await?];
    let all = whole("How?");
    ensure!(texts[0] == texts[1] && all.starts_with(&texts[0]) && texts[0].len() < all.len(), "{texts:?}");
    scene.record_ends(&first, "stopped").await?;
    // An answer that has ended comes from the back end.
    first.reload().await?;
    ensure!(text_at_end(&first, "stopped").await? == texts[1], "{:?}: another text after a reload", scene.writer);
    first.close().await?;
    second.close().await
}

/// Two browsers show an answer while all that is on the way breaks. The network of the second one has this fate.
async fn two_browsers_show_each_token_once(fixture: &Fixture, writer: Writer, fate: Fate) -> Result<()> {
    let nats = Nats::alone(fixture).await?;
    let (nats, pause_ms) = (format!("nats://{}", nats.address()), if is_full() { PAUSE_MS_FULL } else { PAUSE_MS });
    let mut scene = AnswerScene::start(fixture, writer, pause_ms, &["--nats", &nats]).await?;
    let relay = Relay::start_for(b"GET /chat/history", scene.node.address()).await?;
    let near = Browser::start(fixture)?;
    let far = Browser::start_redirected(fixture, scene.node.address(), &relay.address())?;
    an_answer_is_stopped(&scene, [&near, &far]).await?;

    let first = scene.ask(&near, "Why?").await?;
    goes_on(&first).await?;
    let second = far.open("Why?", &first.url().await?).await?;
    goes_on(&second).await?;
    first.reload().await?;
    goes_on(&first).await?;
    relay.let_in(false);
    relay.decide(fate, usize::MAX);
    // sleep: the length of the network cut
    sleep(if is_full() { CUT_FULL } else { CUT }).await;
    relay.let_in(true);
    goes_on(&second).await?;
    scene.node.process.kill().await?;
    // sleep: chunks find no node meanwhile
    sleep(CHUNKS).await;
    scene.node.start_again(fixture).await?;
    for page in [&first, &second] {
        goes_on(page).await?;
    }
    let log = scene.back_end.log();
    ensure!(!log.contains("goes on in a second"), "{writer:?}: the model was called again\n{log}");
    scene.restart_back_end(SHORT_PAUSE_MS).await?;
    for page in [&first, &second] {
        ensure!(text_at_end(page, "finished").await? == whole("Why?"), "{writer:?}: {}", page.text("answer").await?);
    }
    scene.record_ends(&first, "finished").await?;
    let resets = scene.node.metrics().await?.sum("trunkline_history_resets_total", &[]);
    ensure!(resets == 0.0, "{writer:?}: {resets} resets");
    near.end().await?;
    far.end().await
}

#[test]
fn an_answer_in_python_is_whole_in_two_browsers_whatever_breaks() {
    run_heavy_test(async |fixture| two_browsers_show_each_token_once(fixture, Writer::Python, Fate::Held).await);
}

#[test]
fn an_answer_in_node_is_whole_in_two_browsers_whatever_breaks() {
    run_heavy_test(async |fixture| two_browsers_show_each_token_once(fixture, Writer::Node, Fate::Cut).await);
}

/// Without a store, a killed node loses the record.
async fn a_lost_record_is_sent_again(fixture: &Fixture, writer: Writer) -> Result<()> {
    let mut scene = AnswerScene::start(fixture, writer, PAUSE_MS, &[]).await?;
    let browser = Browser::start(fixture)?;
    let page = scene.ask(&browser, "Why?").await?;
    goes_on(&page).await?;
    scene.node.process.kill().await?;
    scene.node.start_again(fixture).await?;
    page.see("answer", "Why? I count: 1 2 3 ").await?;
    goes_on(&page).await?;
    // Both are killed, and a chunk of the killed back end is the first one of the new record.
    scene.back_end.kill().await?;
    scene.node.process.kill().await?;
    scene.node.start_again(fixture).await?;
    let (back_end, path) = scene.record(&page).await?;
    let chunk = json!({ "target": "Added", "arguments": [7, " 7", null] });
    assert_eq!(back_end.ask(Method::POST, &format!("{path}/:send"), &chunk).await?.status, 202);
    scene.restart_back_end(SHORT_PAUSE_MS).await?;
    ensure!(text_at_end(&page, "finished").await? == whole("Why?"), "{writer:?}: {}", page.text("answer").await?);
    browser.end().await
}

#[test]
fn a_record_that_was_lost_with_its_node_is_sent_again_in_python() {
    run_heavy_test(async |fixture| a_lost_record_is_sent_again(fixture, Writer::Python).await);
}

#[test]
fn a_record_that_was_lost_with_its_node_is_sent_again_in_node() {
    run_heavy_test(async |fixture| a_lost_record_is_sent_again(fixture, Writer::Node).await);
}

#[test]
fn two_processes_write_one_answer_once() {
    run_test(async |fixture| {
        let mut scene = AnswerScene::start(fixture, Writer::Python, PAUSE_MS, &[]).await?;
        let json = [("content-type", "application/json")];
        let body = json!({ "question": "Why?" }).to_string();
        let asked = exchange(&scene.address, Method::POST, "/ask", &json, body.into()).await?.json()?;
        let id = asked["answer"].as_str().context("an id")?;
        let back_end = BackEnd::trusted(scene.node.address(), "chat", ACCESS_KEY)?;
        let path = format!("/groups/answer-{id}/history");
        let read = async || back_end.ask(Method::GET, &path, &Value::Null).await?.json();
        let first = until(async || {
            let page = read().await?;
            Ok((page["oldest"].is_string()).then(|| page["oldest"].clone()))
        })
        .await?;
        let other_address = free_address()?;
        let mut other = scene.start_another(&other_address, PAUSE_MS)?;
        scene.serves(&other_address).await?;
        other.wait_for_lines(&format!("answer {id} goes on in a second"), 2).await?;
        assert!(other.log().contains("422"), "the node refuses another chunk of the same number");
        scene.restart_back_end(SHORT_PAUSE_MS).await?;
        let answer = until(async || {
            let answer = get(&other_address, &format!("/answers/{id}")).await?.json()?;
            Ok((answer["state"] == "finished").then_some(answer))
        })
        .await?;
        assert_eq!(answer["text"], whole("Why?"));
        let page = read().await?;
        let items = page["items"].as_array().context("a list")?;
        let numbers: Vec<_> = items.iter().map(|item| item["arguments"][0].as_u64()).collect();
        assert_eq!(numbers, (1..=items.len() as u64).map(Some).collect::<Vec<_>>());
        assert_eq!((&page["position"], &page["oldest"]), (&page["newest"], &first), "one page of the same record");
        Ok(())
    });
}

/// Blocks of a page in a language, without their fences.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Code of the page that is a part of no file: the official client, and another model.
fn is_variant(block: &str) -> bool {
    block.contains("signalR.") || block.starts_with("async def model")
}

#[test]
fn the_page_about_answers_shows_the_code_of_the_files() {
    run_test(async |_fixture| {
        let page = std::fs::read_to_string(Path::new(BOOK).join("ai-answer.md"))?;
        let read = |name: &&str| std::fs::read_to_string(Path::new(BOOK).join("examples").join(name));
        let files = FILES.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        for block in ["toml", "python", "js"].iter().flat_map(|language| blocks(&page, language)) {
            let is_shown = is_variant(block) || files.iter().any(|file| file.contains(block));
            ensure!(is_shown, "no file of the example has this part of ai-answer.md:\n{block}");
        }
        Ok(())
    });
}

#[test]
fn the_official_client_shows_an_answer_from_its_beginning() {
    run_heavy_test(async |fixture| {
        let scene = AnswerScene::start(fixture, Writer::Python, SHORT_PAUSE_MS, &[]).await?;
        let book = std::fs::read_to_string(Path::new(BOOK).join("ai-answer.md"))?;
        let [script] = blocks(&book, "js").into_iter().filter(|block| is_variant(block)).collect::<Vec<_>>()[..] else {
            bail!("one block with the official client")
        };
        let public = scene.folder.join("public");
        let page = format!(
            "<!doctype html><p id=\"answer\"></p><script src=\"signalr.js\"></script><script type=\"module\">{script}</script>"
        );
        std::fs::write(public.join("signalr.html"), page)?;
        std::fs::copy(OFFICIAL_SCRIPT, public.join("signalr.js"))?;
        std::fs::rename(scene.folder.join("follow.mjs"), public.join("follow.mjs"))?;
        let browser = Browser::start(fixture)?;
        let asked = scene.ask(&browser, "Why?").await?;
        let url = asked.url().await?.replace("/?", "/signalr.html?");
        let page = browser.open("official", &url).await?;
        let all = whole("Why?") + " (finished)";
        until(async || Ok((page.text("answer").await? == all).then_some(()))).await?;
        page.reload().await?;
        until(async || Ok((page.text("answer").await? == all).then_some(()))).await?;
        browser.end().await
    });
}
