//! Messages about conditions for an HTTP receiver: `--condition-webhook`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio::time::sleep;
use tracing::warn;

use crate::edge::observer::ConditionSnapshot;
use crate::engine::shard::Shared;
use crate::ground::condition::{ConditionKind, ConditionNotice, Finding, NoticeKind};
use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
use crate::ground::net::http_client::HttpClient;
#[cfg(feature = "tls")]
use crate::ground::net::tls::ClientTls;

/// Maximum number of waiting messages; beyond it the oldest are dropped, because the newest describe the present state.
const QUEUE_MAX: usize = 128;

/// Timeout of a request.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of attempts for a message.
const TRIES: u32 = 3;

/// Times of the attempts.
pub(super) const PACE: PostPace = PostPace { timeout: POST_TIMEOUT, pause: Duration::from_secs(5) };

/// Time for which a failure is reported. Without other conditions, no message shows that the receiver works again.
const REPORTED_FOR: Duration = Duration::from_secs(600);

/// Subject of the condition that reports a failing receiver.
const SUBJECT: &str = "--condition-webhook";

/// Timeout of an attempt, and pause between two attempts for a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct PostPace {
    timeout: Duration,
    pause: Duration,
}

/// Queue of messages for the receiver. A task sends them until the queue is dropped.
pub(super) struct ConditionWebhook {
    queue: Sender<String>,
    node: String,
}

impl ConditionWebhook {
    /// Starts the task. Needs a runtime.
    pub(super) fn start(url: Uri, shared: &Arc<Shared>, pace: PostPace) -> Self {
        let (queue, messages) = channel(QUEUE_MAX);
        tokio::spawn(send(url, shared.clone(), messages, pace));
        Self { queue, node: shared.settings.node.clone() }
    }

    /// Queues a message about a beginning or an end. A failing receiver is not notified of its own failure.
    pub(super) fn notify(&self, notice: &ConditionNotice) {
        let event = match notice.kind {
            NoticeKind::Began => "began",
            NoticeKind::Ended => "ended",
            NoticeKind::Lasts => return,
        };
        let one = ConditionSnapshot::from_condition(&self.node, &notice.condition, notice.kind == NoticeKind::Ended);
        // Chat services show the member `text`. Clients choose parts of it, such as origins, so it has no markup.
        let text = format!(
            "{} {} at {}: {}: {}: {}; remedy: {}",
            one.severity, event, one.node, one.text, one.subject, one.detail, one.remedy
        );
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        if one.subject != SUBJECT {
            let mut message = json!(one);
            if let Some(members) = message.as_object_mut() {
                members.insert("event".into(), event.into());
                members.insert("text".into(), text.into());
            }
            // Fails only if the task has ended.
            drop(self.queue.send(message.to_string()));
        }
    }
}

async fn send(url: Uri, shared: Arc<Shared>, mut messages: Receiver<String>, pace: PostPace) {
    let conditions = &shared.reports.conditions;
    // Reads the root certificates once. Without a connector, each message counts as failed.
    let target = target(&url);
    loop {
        let message = match messages.recv().await {
            Ok(message) => message,
            Err(RecvError::Lagged(dropped)) => {
                warn!(dropped, "the receiver of --condition-webhook is too slow: oldest messages dropped");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        for attempt in 1..=TRIES {
            match post(&target, &url, &message, pace.timeout).await {
                Ok(()) => {
                    conditions.clear(ConditionKind::TelemetryFails, SUBJECT);
                    break;
                }
                Err(problem) => {
                    let finding = Finding::new(ConditionKind::TelemetryFails, SUBJECT, problem);
                    conditions.report(finding, Some(REPORTED_FOR));
                    if attempt < TRIES {
                        sleep(pace.pause).await;
                    }
                }
            }
        }
    }
}

fn target(url: &Uri) -> Result<(Address, HttpClient), String> {
    let address = Address::try_from(url)?;
    let client = HttpClient::without_pool(connector(&address)?);
    Ok((address, client))
}

async fn post(
    target: &Result<(Address, HttpClient), String>,
    url: &Uri,
    message: &str,
    timeout: Duration,
) -> Result<(), String> {
    let (address, client) = target.as_ref().map_err(String::clone)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path).header(CONTENT_TYPE, "application/json").body(Body::from(message.to_owned()));
    let request = request.map_err(|error| error.to_string())?;
    let answer = client.fetch(address, request, 64 * 1024, timeout).await.map_err(|error| error.to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("the answer is {}", answer.status())) }
}

#[cfg(feature = "tls")]
fn connector(address: &Address) -> Result<Connector, String> {
    match address.is_tls() {
        true => Connector::with_tls(ClientTls::default()).map_err(|error| error.to_string()),
        false => Ok(Connector::default()),
    }
}

#[cfg(not(feature = "tls"))]
fn connector(_address: &Address) -> Result<Connector, String> {
    Ok(Connector::default())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::Value;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::time::{Instant, timeout};
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::engine::shard::ShardSender;
    use crate::ground::condition::ActiveCondition;
    use crate::ground::config::Settings;

    const QUICK: PostPace = PostPace { timeout: Duration::from_secs(2), pause: Duration::from_millis(50) };

    fn node() -> Arc<Shared> {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let settings = Settings::embedded(keys, Vec::new(), false);
        Shared::alone(settings, vec![ShardSender::new().0])
    }

    fn start(address: SocketAddr, shared: &Arc<Shared>) -> ConditionWebhook {
        ConditionWebhook::start(format!("http://{address}/hooks/SECRET").parse().unwrap(), shared, QUICK)
    }

    fn notify(webhook: &ConditionWebhook, hub: &str) {
        let (kind, subject) = (ConditionKind::HubWithoutAppServer, hub.to_owned());
        let (detail, lasts) = ("no client waits <!channel> & more".into(), Duration::ZERO);
        let condition = ActiveCondition { kind, subject, detail, since_ms: 1, lasts };
        webhook.notify(&ConditionNotice { kind: NoticeKind::Began, condition });
    }

    /// Receives one message over a new connection, and answers with this status, or never.
    async fn receive(listener: &TcpListener, status: Option<u16>) -> Value {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, mut length, mut line) = (BufReader::new(stream), 0, String::new());
        while stream.read_line(&mut line).await.unwrap() > 2 {
            let head = line.to_ascii_lowercase();
            length = head.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
            line.clear();
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        match status {
            Some(status) => {
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
            // Longer than the timeout of the request.
            None => drop(timeout(Duration::from_secs(10), stream.read(&mut [0])).await),
        }
        serde_json::from_slice(&body).unwrap()
    }

    /// Waits until the receiver counts as failing or not; returns the problem.
    async fn until_failing(shared: &Shared, is_failing: bool) -> Option<String> {
        let wait = async {
            loop {
                // A second later each time, so that ended reports disappear.
                shared.reports.conditions.update(Vec::new(), false, Instant::now());
                let list = shared.reports.conditions.list();
                let found = list.into_iter().find(|found| found.kind == ConditionKind::TelemetryFails);
                if found.is_some() == is_failing {
                    return found.map(|found| found.detail);
                }
                // sleep: the receiver's state changes without a notification.
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(20), wait).await.unwrap()
    }

    #[tokio::test]
    async fn a_receiver_that_is_down_is_reported_until_it_accepts_a_message() {
        let (shared, listener) = (node(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        drop(listener);
        let webhook = start(address, &shared);
        notify(&webhook, "lost");
        let problem = until_failing(&shared, true).await.unwrap();
        assert!(problem.contains("refused") && !problem.contains("SECRET"), "{problem}");
        let listener = TcpListener::bind(address).await.unwrap();
        notify(&webhook, "chat");
        let mut message = receive(&listener, Some(204)).await;
        if message["subject"] == "lost" {
            message = receive(&listener, Some(204)).await;
        }
        let parts = ["event", "name", "subject"].map(|name| message[name].as_str().unwrap());
        assert_eq!(parts, ["began", "hub-without-app-server", "chat"]);
        let text = message["text"].as_str().unwrap();
        assert!(text.starts_with("error began at") && text.contains(" &lt;!channel&gt; &amp; more;"), "{message}");
        until_failing(&shared, false).await;
    }

    #[tokio::test]
    async fn a_message_is_sent_again_after_a_timeout_and_after_an_error() {
        let (shared, listener) = (node(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let webhook = start(listener.local_addr().unwrap(), &shared);
        notify(&webhook, "chat");
        for status in [None, Some(500), Some(200)] {
            assert_eq!(receive(&listener, status).await["subject"], "chat");
            if status.is_none() {
                until_failing(&shared, true).await;
            }
        }
        until_failing(&shared, false).await;
    }

    #[tokio::test]
    async fn behind_a_slow_receiver_the_oldest_messages_are_dropped() {
        let (shared, listener) = (node(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let webhook = start(listener.local_addr().unwrap(), &shared);
        notify(&webhook, "first");
        // While the first one has no answer, more messages arrive than the queue holds.
        let (first, ()) = tokio::join!(receive(&listener, None), async {
            // sleep: the task has to take the first message out of the queue.
            sleep(Duration::from_millis(100)).await;
            (0..QUEUE_MAX + 50).for_each(|number| notify(&webhook, &number.to_string()));
        });
        assert_eq!(first["subject"], "first");
        let mut subjects = Vec::new();
        while subjects.last().is_none_or(|subject| *subject != (QUEUE_MAX + 49).to_string()) {
            subjects.push(receive(&listener, Some(204)).await["subject"].as_str().unwrap().to_owned());
        }
        assert_eq!(subjects[..2], ["first", "50"]);
    }
}
