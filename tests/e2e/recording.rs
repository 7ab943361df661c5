//! `trunkline record` and `trunkline replay`: recorded traffic of real clients, replayed to another app server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_test, until};
use trunkline_tests::harness::token;

const ADMIN_TOKEN: &str = "the-admin-token-of-the-recordings";

/// Proxy that allows recording, and a running recording of one hub.
struct Scene {
    proxy: Proxy,
    recording: Process,
    file: PathBuf,
}

impl Scene {
    async fn open(fleet: &Fleet<'_>, app: &AppServer, hub: &str, more: &[&str]) -> Result<Self> {
        let proxy = fleet.proxy_with(&[app], &["--admin-token", ADMIN_TOKEN]).await?;
        let file = fleet.fixture().folder().join("recording.jsonl");
        let mut command = Command::new(profile_folder()?.join("trunkline"));
        command.args(["record", "--hub", hub, "--admin", proxy.admin(), "--out"]).arg(&file).args(more);
        command.env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN);
        let mut recording = Process::start(fleet.fixture(), "record", command)?;
        recording.wait_for_log("recording hub").await?;
        Ok(Self { proxy, recording, file })
    }

    /// Ends the recording with Ctrl-C. Returns its lines.
    async fn end(&mut self) -> Result<Vec<Value>> {
        self.recording.signal(Signal::Interrupt).await?;
        ensure!(self.recording.ended().await?.success(), "{}", self.recording.log());
        lines(&self.file)
    }

    /// Waits until the recording has this many lines of an event.
    async fn recorded(&self, event: &str, count: usize) -> Result<()> {
        until(async || Ok((of(&lines(&self.file).unwrap_or_default(), event).len() >= count).then_some(()))).await
    }
}

fn lines(file: &Path) -> Result<Vec<Value>> {
    std::fs::read_to_string(file)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

async fn replay(file: &Path, app: &AppServer, more: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(profile_folder()?.join("trunkline"));
    command.arg("replay").arg(file).args(["--upstream", &format!("http://{}", app.address())]).args(more);
    let output = command.env("TRUNKLINE_ACCESS_KEY", ACCESS_KEY).output().await?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

/// Two official clients, one per protocol, send to all and in a room; then one of them leaves.
async fn chat(fixture: &Fixture, proxy: &Proxy) -> Result<()> {
    let agents = Agents::new(fixture);
    let mut clients = Vec::new();
    for kind in Kind::JS {
        clients.push(agents.client(kind, &proxy.url("/chat")).subscribe(&["ReceiveMessage"]).open().await?);
    }
    for (number, name) in ["ann", "ben"].into_iter().enumerate() {
        clients[number].invoke("JoinRoom", json!(["kitchen"])).await?;
        for text in ["hello", "söme \u{1f600} text", "{\"a\":[1,2.50]}"] {
            clients[number].invoke("SendMessage", json!([name, text])).await?;
            for client in &mut clients {
                assert_eq!(client.expect("ReceiveMessage").await?, [json!(name), json!(text)]);
            }
        }
    }
    clients[1].invoke("LeaveRoom", json!(["kitchen"])).await?;
    clients[1].invoke("SendToRoom", json!(["kitchen", "ben", "who is there?"])).await?;
    clients[0].expect("ReceiveMessage").await?;
    clients[0].invoke_failing("NoSuchMethod", json!([])).await?;
    clients[1].close().await?;
    clients[0].invoke("SendMessage", json!(["ann", "alone"])).await?;
    clients[0].expect("ReceiveMessage").await?;
    Ok(())
}

#[test]
fn a_recorded_chat_replays_byte_equal_with_its_pauses_and_without() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Chat).await?;
        let mut scene = Scene::open(&fleet, &app, "/chat", &["--payloads"]).await?;
        chat(fixture, &scene.proxy).await?;
        scene.recorded("close", 1).await?;
        let lines = scene.end().await?;
        assert_eq!(
            (&lines[0]["event"], &lines[0]["version"], &lines[0]["hub"]),
            (&json!("header"), &json!(1), &json!("chat"))
        );
        let [opened, up, down] = ["open", "up", "down"].map(|event| of(&lines, event).len());
        // Calls and hub handshakes with their answers; six messages to both clients, one to a room, one to the
        // remaining client.
        assert_eq!((opened, up, down), (2, 12 + 2, 12 + 2 + 6 * 2 + 2), "{lines:#?}");
        let protocols: Vec<_> = of(&lines, "open").iter().map(|open| open["protocol"].clone()).collect();
        assert_eq!(protocols, ["json", "messagepack"]);
        for more in [&[][..], &["--fast"]] {
            let fresh = fleet.app(App::Chat).await?;
            let (is_good, told) = replay(&scene.file, &fresh, more).await?;
            assert!(is_good, "{told}");
            let counts = format!(
                "connections: 2, messages sent: {up}, answers compared: {down}: {down} equal, 0 differ, 0 missing, 0 \
                 surplus, 0 not compared"
            );
            assert!(told.contains(&counts), "{told}");
        }
        Ok(())
    });
}

#[test]
fn an_app_server_that_answers_otherwise_is_found_out_and_the_answer_is_named() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app_with(App::Bench, &["--name", "old"]).await?;
        let mut scene = Scene::open(&fleet, &app, "bench", &["--payloads"]).await?;
        let client = Agents::new(fixture).client(Kind::JsJson, &scene.proxy.url("/bench")).open().await?;
        client.invoke("Echo", json!(["same"])).await?;
        // The instance name differs after each start.
        client.invoke("WhoAmI", json!([])).await?;
        scene.recorded("down", 3).await?;
        let lines = scene.end().await?;
        let fresh = fleet.app_with(App::Bench, &["--name", "new"]).await?;
        let (is_good, told) = replay(&scene.file, &fresh, &[]).await?;
        assert!(!is_good && told.contains("answers compared: 3: 2 equal, 1 differ, 0 missing, 0 surplus"), "{told}");
        let id = of(&lines, "open")[0]["connection"].as_str().context("an id")?;
        assert!(
            told.contains(&format!("differs: completion to \"WhoAmI\" (invocation 1) of {id}, line 8: byte ")),
            "{told}"
        );
        let values = |told: &str| told.contains("recorded: ") || told.contains("instance");
        assert!(!values(&told), "values are hidden: {told}");
        let (_, told) = replay(&scene.file, &fresh, &["--fast", "--show"]).await?;
        assert!(values(&told), "{told}");
        let other = fleet.app(App::Chat).await?;
        let (is_good, told) = replay(&scene.file, &other, &[]).await?;
        assert!(!is_good && told.contains("the app server has no hub \"bench\", only chat"), "{told}");
        drop(other);
        Ok(())
    });
}

#[test]
fn connections_come_with_their_ids_users_claims_and_headers() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let mut scene = Scene::open(&fleet, &app, "/members", &["--payloads", "--user", "ann"]).await?;
        let agents = Agents::new(fixture);
        let mut seen = Vec::new();
        for user in ["ann", "ben"] {
            let client = agents.client(Kind::JsMessagePack, &scene.proxy.url("/members?room=1"));
            let client = client.access_token(&token::of_user(ACCESS_KEY, user)?);
            let client =
                client.headers(json!({ "X-Tenant": "acme", "Cookie": "sid=the-secret-of-a-session" })).open().await?;
            seen.push(client.invoke("WhoAmI", json!([])).await?);
        }
        assert_eq!(seen[0]["userId"], "ann");
        scene.recorded("down", 2).await?;
        let lines = scene.end().await?;
        let [open] = of(&lines, "open")[..] else { panic!("only ann is recorded: {lines:#?}") };
        assert_eq!((&open["user"], &open["query"]), (&json!("ann"), &json!("?room=1")));
        let text = std::fs::read_to_string(&scene.file)?;
        assert!(text.contains("acme") && text.contains("[redacted]") && !text.contains("the-secret"), "{text}");
        let fresh = fleet.app(App::Members).await?;
        let (is_good, told) = replay(&scene.file, &fresh, &["--fast", "--show"]).await?;
        assert!(is_good && told.contains("2 equal, 0 differ"), "{told}");
        Ok(())
    });
}

#[test]
fn secrets_are_not_written_and_what_has_lost_them_is_not_compared() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Chat).await?;
        let mut scene = Scene::open(&fleet, &app, "/chat", &["--payloads"]).await?;
        let agents = Agents::new(fixture);
        let mut client =
            agents.client(Kind::JsJson, &scene.proxy.url("/chat")).subscribe(&["ReceiveMessage"]).open().await?;
        client.invoke("SendMessage", json!(["ann", "my password=hush-hush"])).await?;
        client.expect("ReceiveMessage").await?;
        scene.recorded("down", 3).await?;
        scene.end().await?;
        let text = std::fs::read_to_string(&scene.file)?;
        assert!(text.contains("password=[redacted]") && !text.contains("hush-hush"), "{text}");
        let fresh = fleet.app(App::Chat).await?;
        let (is_good, told) = replay(&scene.file, &fresh, &["--fast"]).await?;
        assert!(is_good && told.contains("2 equal, 0 differ, 0 missing, 0 surplus, 1 not compared"), "{told}");
        assert!(told.contains("messages sent without their secrets, whose answers may differ: 1"), "{told}");
        Ok(())
    });
}

#[test]
fn without_payloads_calls_are_told_without_what_is_said_and_nothing_can_be_replayed() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Chat).await?;
        let mut scene = Scene::open(&fleet, &app, "chat", &[]).await?;
        let client = Agents::new(fixture).client(Kind::JsJson, &scene.proxy.url("/chat")).open().await?;
        client.invoke("SendMessage", json!(["ann", "between us"])).await?;
        scene.recorded("up", 2).await?;
        let lines = scene.end().await?;
        assert!(of(&lines, "up").iter().any(|up| up["target"] == "SendMessage" && up.get("text").is_none()));
        assert!(!std::fs::read_to_string(&scene.file)?.contains("between us"));
        let (is_good, told) = replay(&scene.file, &app, &[]).await?;
        assert!(
            !is_good && told.contains("recording.jsonl has no payloads") && told.contains("record with --payloads"),
            "{told}"
        );
        Ok(())
    });
}

#[test]
fn payloads_need_the_admin_token_and_refusals_say_what_to_do() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Chat).await?;
        let proxy = fleet.proxy_with(&[&app], &["--admin-token", ADMIN_TOKEN]).await?;
        let file = fixture.folder().join("none.jsonl");
        for (arguments, told) in [
            (vec!["--hub", "chat", "--payloads"], "refuses: --admin-token is required"),
            (vec!["--hub", "chat", "--payloads", "--admin-token", "not-the-token-at-all"], "wrong --admin-token"),
            (vec!["--hub", "/talk", "--admin-token", ADMIN_TOKEN], "no reachable node has a hub \"/talk\""),
        ] {
            let mut command = Command::new(profile_folder()?.join("trunkline"));
            command.args(["record", "--admin", proxy.admin(), "--out"]).arg(&file).args(&arguments);
            let output = command.env_remove("TRUNKLINE_ADMIN_TOKEN").output().await?;
            let text = String::from_utf8(output.stderr)?;
            assert!(!output.status.success() && text.contains(told), "{arguments:?}: {text}");
        }
        assert!(!file.exists());
        Ok(())
    });
}
