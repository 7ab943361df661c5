//! Log of calls: a span around each, and one line for a call that does not fit.

use std::io::Write;

use tracing_subscriber::fmt::MakeWriter;
use trunkline::{Context, Hub};

use crate::{Journal, client, error};

#[derive(Clone)]
struct Lines(Journal);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(String::from_utf8_lossy(bytes).trim());
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

/// Held by the test that logs: subscribers of one process share the levels that are enabled.
static LOGGING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs calls of a hub, and returns the lines of the log that name a call.
async fn logged(hub: Hub, level: tracing::Level) -> (String, Vec<String>) {
    let _alone = LOGGING.lock().await;
    let lines = Journal::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(Lines(lines.clone()))
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let (_server, mut ann) = client(hub, "").await;
    ann.invoke::<()>("note", (serde_json::json!({"text": "abc"}),)).await.unwrap();
    error(&mut ann, "Note", (serde_json::json!({"txt": "abc"}),)).await;
    error(&mut ann, "Note", ()).await;
    error(&mut ann, &format!("Nope{}", "x".repeat(1000)), ()).await;
    drop(guard);
    let id = ann.connection_id().to_owned();
    (id, lines.take().into_iter().filter(|line| line.contains("call{")).collect())
}

#[tokio::test]
async fn what_the_app_logs_names_hub_method_connection_and_user() {
    let (id, lines) = logged(hub(), tracing::Level::INFO).await;
    let span = |method: &str| format!("INFO call{{hub=\"hub\" method=\"{method}\" connection=\"{id}\" user=\"ann\"}}:");
    assert_eq!(lines, [format!("{} hello", span("on_connected")), format!("{} noted length=3", span("Note"))]);
}

#[tokio::test]
async fn a_call_that_does_not_fit_is_one_line_with_the_reason() {
    let (_, lines) = logged(hub(), tracing::Level::DEBUG).await;
    let unfit: Vec<_> = lines.iter().filter(|line| line.contains("does not fit")).collect();
    assert_eq!(unfit.len(), 3, "{lines:?}");
    assert!(unfit[0].contains("method=\"Note\"") && unfit[0].starts_with("DEBUG"), "{unfit:?}");
    assert!(unfit[0].contains("argument 1: unknown field `txt`, expected `text`"), "{unfit:?}");
    assert!(unfit[1].contains("Invocation provides 0 argument(s) but target expects 1."), "{unfit:?}");
    assert!(
        unfit[2].contains(&format!("method=\"Nope{}\"", "x".repeat(60))) && unfit[2].contains("Method does not exist."),
        "{unfit:?}"
    );
}

#[tokio::test]
async fn a_hub_with_detailed_errors_logs_such_calls_as_warnings() {
    let (_, lines) = logged(hub().detailed_errors(), tracing::Level::INFO).await;
    let warned: Vec<_> = lines.iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(warned.len(), 3, "{lines:?}");
}
