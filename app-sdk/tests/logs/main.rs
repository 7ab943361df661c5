//! Tests of call logs: a span around each call, and a bounded number of lines for calls that do not fit, are refused,
//! or block their thread.
//!
//! A separate program, because a log callsite is disabled permanently if a thread without a subscriber reaches it
//! first.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use trunkline::testing::TestServer;
use trunkline::{Context, Hub, HubError, Policy};

/// Lines of the log, in order.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push(String::from_utf8_lossy(bytes).trim().to_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn hub() -> Hub {
    Hub::new("/hub").on_connected(async || tracing::info!("hello")).method("Note", async |_: Context, text: Text| {
        tracing::info!(length = text.text.len(), "noted");
    })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
}

/// Held by the test that logs, because subscribers of a process share the enabled levels.
static LOGGING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn subscriber(level: tracing::Level, lines: &Lines) -> impl tracing::Subscriber + use<> {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(lines.clone())
        .finish()
}

/// Runs calls of a hub. Returns the log lines that name a call.
async fn logged(hub: Hub, level: tracing::Level) -> (String, Vec<String>) {
    let _alone = LOGGING.lock().await;
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(subscriber(level, &lines));
    let server = TestServer::new(hub).unwrap();
    let mut ann = server.connect("/hub").user("ann").await.unwrap();
    ann.invoke::<()>("note", (serde_json::json!({"text": "abc"}),)).await.unwrap();
    ann.invoke::<()>("Note", (serde_json::json!({"txt": "abc"}),)).await.unwrap_err();
    ann.invoke::<()>("Note", ()).await.unwrap_err();
    ann.invoke::<()>(&format!("Nope{}", "x".repeat(1000)), ()).await.unwrap_err();
    drop(guard);
    let id = ann.connection_id().to_owned();
    let lines = std::mem::take(&mut *lines.0.lock().unwrap());
    (id, lines.into_iter().filter(|line| line.contains("call{") || line.contains("does not match")).collect())
}

#[tokio::test]
async fn log_lines_of_the_app_have_hub_method_connection_and_user() {
    let (id, lines) = logged(hub(), tracing::Level::DEBUG).await;
    let lines: Vec<_> =
        lines.into_iter().filter(|line| line.starts_with("INFO") && !line.contains("not match")).collect();
    let expected = [("on_connected", "}: hello"), ("Note", "}: noted length=3")];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, (method, end)) in lines.iter().zip(expected) {
        // With the feature `opentelemetry` more fields follow.
        let begin = format!("INFO call{{hub=\"hub\" method=\"{method}\" connection=\"{id}\" user=\"ann\"");
        assert!(line.starts_with(&begin) && line.ends_with(end), "{line}");
    }
}

#[tokio::test]
async fn a_call_that_does_not_fit_is_one_line_with_the_reason() {
    let (_, lines) = logged(hub(), tracing::Level::DEBUG).await;
    let unfit: Vec<_> = lines.iter().filter(|line| line.contains("does not match")).collect();
    assert_eq!(unfit.len(), 3, "{lines:?}");
    assert!(unfit[0].contains("method=\"Note\"") && unfit[0].starts_with("INFO"), "{unfit:?}");
    assert!(unfit[0].contains("argument 1: unknown field `txt`, expected `text`"), "{unfit:?}");
    assert!(unfit[1].contains("Invocation provides 0 argument(s) but target expects 1."), "{unfit:?}");
    assert!(
        unfit[2].contains(&format!("method=\"Nope{}\"", "x".repeat(60))) && unfit[2].contains("Method does not exist."),
        "{unfit:?}"
    );
}

#[tokio::test]
async fn the_default_log_names_method_argument_and_reason_of_such_calls() {
    for hub in [hub(), hub().detailed_errors()] {
        let (_, lines) = logged(hub, tracing::Level::INFO).await;
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with("INFO")), "{lines:?}");
        assert!(lines[0].contains("method=\"Note\" reason=\"argument 1: unknown field `txt`"), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("call{")), "spans are not made at this level: {lines:?}");
    }
}

/// Runs clients of a hub. Returns all log lines at level `info`.
async fn lines_of(hub: Hub, clients: impl AsyncFnOnce(&TestServer)) -> Vec<String> {
    let _alone = LOGGING.lock().await;
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(subscriber(tracing::Level::INFO, &lines));
    let server = TestServer::new(hub).unwrap();
    clients(&server).await;
    drop(guard);
    std::mem::take(&mut *lines.0.lock().unwrap())
}

#[tokio::test]
async fn a_quoted_text_of_a_client_is_one_short_line() {
    let lines = lines_of(hub(), async |server| {
        let mut eve = server.connect("/hub").await.unwrap();
        let key = format!("a\nERROR forged {}", "x".repeat(10_000));
        eve.invoke::<()>("Note", (serde_json::json!({ key: 1 }),)).await.unwrap_err();
    })
    .await;
    let unfit: Vec<_> = lines.iter().filter(|line| line.contains("does not match")).collect();
    assert!(unfit.len() == 1 && unfit[0].lines().count() == 1 && unfit[0].len() < 1000, "{unfit:?}");
}

#[tokio::test(start_paused = true)]
async fn strangers_cause_no_warning_and_few_log_lines() {
    let hub = Hub::new("/hub").guarded("Clear", Policy::claim("role", "admin"), async || ());
    let lines = lines_of(hub, async |server| {
        let mut eve = server.connect("/hub").await.unwrap();
        for _ in 0..100 {
            eve.invoke::<()>("Clear", ()).await.unwrap_err();
            eve.invoke::<()>("Nope", ()).await.unwrap_err();
            eve.invoke::<()>("Clear", (1, 2)).await.unwrap_err();
        }
    })
    .await;
    assert!(lines.iter().all(|line| line.starts_with("INFO")), "{lines:?}");
    let refused = lines.iter().filter(|line| line.contains("a policy refuses the user"));
    assert!(refused.clone().all(|line| line.contains("method=\"Clear\"") && line.contains("claim role = admin")));
    let unfit = lines.iter().filter(|line| line.contains("does not match")).count();
    assert_eq!((refused.count() + unfit, unfit), (10, 6), "{lines:?}");
}

#[tokio::test]
async fn a_policy_refusal_logs_one_line_and_no_error() {
    let lines = lines_of(Hub::new("/hub").require_claim("role", "admin"), async |server| {
        server.connect("/hub").user("eve").await.unwrap_err();
    })
    .await;
    let lines: Vec<_> = lines.iter().filter(|line| !line.contains("proxy linked")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("INFO") && lines[0].contains("a policy refuses"), "{lines:?}");
}

#[tokio::test]
async fn a_method_that_keeps_its_thread_is_named() {
    let hub = Hub::new("/hub").method("Block", async |wait: bool| {
        if wait {
            tokio::task::yield_now().await;
        }
        // sleep: the test needs a method that blocks its thread
        std::thread::sleep(Duration::from_millis(1_100));
    });
    let lines = lines_of(hub, async |server| {
        let mut ann = server.connect("/hub").await.unwrap();
        ann.invoke::<()>("Block", (true,)).await.unwrap();
        ann.invoke::<()>("Block", (false,)).await.unwrap();
    })
    .await;
    let held: Vec<_> = lines.iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(held.len(), 2, "{lines:?}");
    assert!(
        held.iter().all(|line| line.contains("method=\"Block\"") && line.contains("has blocked its thread")),
        "{held:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_with_repeatedly_failing_calls_does_not_fill_the_log() {
    let _alone = LOGGING.lock().await;
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(subscriber(tracing::Level::INFO, &lines));
    let hub = Hub::new("/hub").method("Fail", async || Err::<(), _>(HubError::internal("no such table")));
    let server = TestServer::new(hub).unwrap();
    let mut ann = server.connect("/hub").await.unwrap();
    for _ in 0..1000 {
        ann.invoke::<()>("Fail", ()).await.unwrap_err();
    }
    drop(guard);
    let lines = std::mem::take(&mut *lines.0.lock().unwrap());
    let failed = lines.iter().filter(|line| line.contains("method failed")).count();
    assert_eq!(failed, 10, "of 1000 in a second: {lines:?}");
}
