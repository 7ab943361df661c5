//! Invalid and excessive requests: each gets a specific error, and a chat on the same node continues.

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::{Agents, ClientAnswer, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::raw::{RawClient, answer_to_garbage};
use trunkline_tests::harness::scenario::{Fixture, is_full, run_test, until};
use trunkline_tests::harness::token;

use super::{HUB, back_end_at};

const BODY_MAX_BYTES: usize = 2048;
const REQUESTS_MAX: usize = 8;
const CROWD: usize = 500;

/// Requests of a client that reads no responses, each with a large response.
const UNREAD: usize = 2000;

/// Node with low limits, and a client that must not be affected.
struct IntruderScene {
    _app: AppServer,
    node: Proxy,
    back_end: BackEnd,
    witness: RawClient,
}

impl IntruderScene {
    async fn open(fixture: &Fixture) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let (body, requests) = (BODY_MAX_BYTES.to_string(), REQUESTS_MAX.to_string());
        let flags = ["--rest", "--rest-body-max-bytes", &body, "--rest-requests-max", &requests];
        let node = fleet.proxy_with(&[&app], &flags).await?;
        let (back_end, witness) = (back_end_at(node.address())?, RawClient::join(node.address(), "/bench").await?);
        Ok(Self { _app: app, node, back_end, witness })
    }

    /// Head of a send, without its end.
    fn head(&self, more: &str) -> String {
        let (path, bearer) = (self.back_end.path("/:send"), self.back_end.authorization());
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {bearer}\r\nContent-Type: \
             application/json\r\n{more}\r\n"
        )
    }

    async fn goes_on(&mut self, word: &str) -> Result<()> {
        let echoed = self.witness.call("Echo", json!([word])).await?;
        ensure!(echoed["result"] == word, "{echoed}");
        Ok(())
    }

    async fn counted(&self, outcome: &str) -> Result<f64> {
        Ok(self.node.metrics().await?.sum("trunkline_rest_requests_total", &[("outcome", outcome)]))
    }
}

/// Status of the first response, and its text.
fn answered(bytes: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default();
    (status, text)
}

#[test]
fn bodies_that_are_too_large_or_lie_are_refused_by_name() {
    run_test(async |fixture| {
        let mut scene = IntruderScene::open(fixture).await?;
        let address = scene.node.address().to_owned();
        let large = format!("{{\"target\":\"x\",\"arguments\":[\"{}\"]}}", "x".repeat(BODY_MAX_BYTES));
        let announced = scene.head(&format!("Content-Length: {}\r\n", u64::MAX / 2));
        let endless = "800\r\n".to_owned() + &"x".repeat(0x800) + "\r\n";
        let fixed = |length: usize, body: &str| scene.head(&format!("Content-Length: {length}\r\n")) + body;
        let good = json!({ "target": "Notice", "arguments": [] }).to_string();
        for (name, request, status, text) in [
            ("a large body", fixed(large.len(), &large), 413, "--rest-body-max-bytes"),
            ("an announced one", announced, 413, "--rest-body-max-bytes"),
            ("endless chunks", scene.head("Transfer-Encoding: chunked\r\n") + &endless.repeat(20), 413, "2048"),
            ("a chunk of no size", scene.head("Transfer-Encoding: chunked\r\n") + "zz\r\n", 400, "broke off"),
            ("a body cut by its length", fixed(good.len() - 4, &good), 400, "not JSON"),
            ("two lengths", scene.head("Content-Length: 5\r\nContent-Length: 6\r\n") + "{}{}{}", 400, ""),
            ("a negative length", scene.head("Content-Length: -5\r\n"), 400, ""),
        ] {
            let (answered, told) = answered(&answer_to_garbage(&address, request.as_bytes()).await?);
            ensure!(answered == status && told.contains(text), "{name}: {told}");
        }
        // A truncated request leaves no state behind.
        let mut broken = TcpStream::connect(&address).await?;
        broken.write_all(fixed(100, "{\"target\"").as_bytes()).await?;
        broken.shutdown().await?;
        let mut rest = Vec::new();
        drop(broken.read_to_end(&mut rest).await);
        let (status, told) = answered(&rest);
        ensure!(status == 400 && told.contains("broke off"), "{told}");
        let delivery = scene.back_end.send("/:send", "Notice", &json!("good")).await?;
        ensure!(delivery["clients"] == 1, "{delivery}");
        ensure!(scene.witness.next_record().await?["arguments"] == json!(["good"]), "nothing else has come");
        scene.goes_on("after them").await
    });
}

#[test]
fn a_body_that_stops_in_the_middle_is_answered_after_its_time() {
    if !is_full() {
        // Takes half a minute. A contract test covers it in virtual time.
        return;
    }
    run_test(async |fixture| {
        let scene = IntruderScene::open(fixture).await?;
        let request = scene.head("Content-Length: 100\r\n") + "{\"target\"";
        let (status, told) = answered(&answer_to_garbage(scene.node.address(), request.as_bytes()).await?);
        ensure!(status == 408 && told.contains("30 s"), "{told}");
        Ok(())
    });
}

#[test]
fn strangers_are_refused_before_anything_is_read_or_told() {
    run_test(async |fixture| {
        let mut scene = IntruderScene::open(fixture).await?;
        let address = scene.node.address().to_owned();
        let of_user = token::of_user(ACCESS_KEY, "ann")?;
        let foreign = BackEnd::trusted(&address, HUB, "another key, which is long enough")?;
        let late =
            token::signed(ACCESS_KEY, &json!({ "aud": "http://any/api/", "exp": token::in_seconds(0)? - 3600 }))?;
        let other = token::signed(ACCESS_KEY, &json!({ "aud": "http://any/api/hubs/other/" }))?;
        let user = BackEnd::with_token(&address, HUB, &of_user);
        let strangers = [
            user,
            foreign,
            BackEnd::with_token(&address, HUB, &late),
            BackEnd::with_token(&address, HUB, &other),
            BackEnd::with_token(&address, HUB, ""),
            BackEnd::with_token(&address, HUB, &"x.".repeat(3000)),
        ];
        for (number, stranger) in strangers.iter().enumerate() {
            for (method, path) in [(Method::POST, "/:send"), (Method::GET, "/users/ann"), (Method::DELETE, "/nothing")]
            {
                let answer = stranger.ask(method, path, &Value::Null).await?;
                ensure!(answer.status == 401, "{number} {path}: {answer:?}");
                ensure!(answer.header("x-ms-error-code") == Some("Error.Token.Invalid"), "{answer:?}");
            }
        }
        // The body of an unauthorized request is not awaited.
        let head =
            "POST /api/hubs/bench/:send HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n";
        let (status, told) = answered(&answer_to_garbage(&address, head.as_bytes()).await?);
        ensure!(status == 401, "{told}");
        ensure!(scene.counted("refused").await? == 3.0 * 6.0 + 1.0);
        scene.goes_on("after strangers").await
    });
}

#[test]
fn requests_beyond_the_limit_are_told_to_come_again_and_a_chat_goes_on() {
    run_test(async |fixture| {
        let mut scene = IntruderScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let builder = agents.client(Kind::JsJson, &scene.node.url("/bench")).answer("Ask", &ClientAnswer::Held);
        let mut held = builder.open().await?;
        let path = format!("/connections/{}/:invoke", held.connection_id()?);
        let (ask, back_end) = (json!({ "target": "Ask", "arguments": [] }), scene.back_end.clone());
        let crowd = join_all((0..CROWD).map(|_| back_end.ask(Method::POST, &path, &ask)));
        let chat = async {
            for _ in 0..REQUESTS_MAX {
                held.expect("Ask").await?;
            }
            // All permits are in use until the client answers.
            until(async || Ok((scene.counted("failed").await? == (CROWD - REQUESTS_MAX) as f64).then_some(()))).await?;
            for word in ["one", "two", "three"] {
                let echoed = scene.witness.call("Echo", json!([word])).await?;
                ensure!(echoed["result"] == word, "{echoed}");
            }
            ensure!(scene.back_end.status(Method::HEAD, "/api/health").await? == 200);
            for question in 0..REQUESTS_MAX {
                held.answer_held("Ask", question, json!(question)).await?;
            }
            anyhow::Ok(())
        };
        let (answers, chat) = tokio::join!(crowd, chat);
        chat?;
        let (mut done, mut refused) = (0, 0);
        for answer in answers {
            let answer = answer?;
            match answer.status.as_u16() {
                200 => done += 1,
                503 => {
                    ensure!(answer.header("retry-after") == Some("1"), "{answer:?}");
                    ensure!(answer.body.contains("--rest-requests-max"), "{answer:?}");
                    refused += 1;
                }
                _ => anyhow::bail!("{answer:?}"),
            }
        }
        ensure!((done, refused) == (REQUESTS_MAX, CROWD - REQUESTS_MAX), "{done} done, {refused} refused");
        ensure!(scene.back_end.status(Method::HEAD, "/users/nobody").await? == 404, "there is room again");
        Ok(())
    });
}

#[test]
fn a_caller_that_reads_no_answer_stops_only_itself() {
    run_test(async |fixture| {
        let mut scene = IntruderScene::open(fixture).await?;
        let id = scene.witness.call("WhoAmI", json!([])).await?["result"]["connectionId"].clone();
        let id = id.as_str().context("an id")?.to_owned();
        ensure!(scene.back_end.status(Method::PUT, &format!("/groups/red/connections/{id}")).await? == 200);
        let (path, bearer) = (scene.back_end.path("/groups/red/connections"), scene.back_end.authorization());
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer}\r\n\r\n");
        let mut idle = TcpStream::connect(scene.node.address()).await?;
        let (mut reading, mut writing) = idle.split();
        let all = request.repeat(UNREAD);
        let mut written = std::pin::pin!(writing.write_all(all.as_bytes()));
        let mut rounds = 0;
        // The caller writes until the node stops reading. Meanwhile others are served.
        while rounds < 50 {
            tokio::select! {
                biased;
                outcome = &mut written => { outcome?; break }
                () = std::future::ready(()) => {}
            }
            scene.goes_on("meanwhile").await?;
            ensure!(scene.back_end.status(Method::HEAD, "/users/nobody").await? == 404);
            rounds += 1;
        }
        let memory = resident_bytes(&scene.node)?;
        ensure!(memory < 200 * 1024 * 1024, "{memory} bytes");
        let mut answer = vec![0; 64];
        let read = reading.read(&mut answer).await?;
        ensure!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
        scene.goes_on("afterwards").await
    });
}

fn resident_bytes(node: &Proxy) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process.id()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
