//! Messages about conditions for an HTTP receiver: `--condition-webhook`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use serde_json::json;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;

use crate::condition::{ConditionKind, ConditionNotice, Finding, NoticeKind};
use crate::net::address::Address;
use crate::net::connector::Connector;
use crate::net::http_client::HttpClient;
#[cfg(feature = "tls")]
use crate::net::tls::ClientTls;
use crate::observer::ConditionSnapshot;
use crate::shard::Shared;

/// Maximum number of waiting messages; further ones are dropped.
const QUEUE_MAX: usize = 100;

/// Timeout of a request.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of attempts for a message, and pause between them.
const TRIES: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Time for which a failure is reported. Without other conditions, no message shows that the receiver works again.
const REPORTED_FOR: Duration = Duration::from_secs(600);

/// Subject of the condition that reports a failing receiver.
const SUBJECT: &str = "--condition-webhook";

/// Queue of messages for the receiver. A task sends them until the queue is dropped.
pub(super) struct ConditionWebhook {
    queue: Sender<String>,
    node: String,
}

impl ConditionWebhook {
    /// Starts the task. Needs a runtime.
    pub(super) fn start(url: Uri, shared: &Arc<Shared>) -> Self {
        let (queue, messages) = channel(QUEUE_MAX);
        tokio::spawn(send(url, shared.clone(), messages));
        Self { queue, node: shared.settings.node.clone() }
    }

    /// Queues a message about a beginning or an end. A failing receiver is not notified of its own failure.
    pub(super) fn notify(&self, notice: &ConditionNotice) {
        let event = match notice.kind {
            NoticeKind::Began => "began",
            NoticeKind::Ended => "ended",
            NoticeKind::Lasts => return,
        };
        let one = ConditionSnapshot::of(&self.node, &notice.condition, notice.kind == NoticeKind::Ended);
        // Chat services show the member `text`.
        let text = format!(
            "{} {} at {}: {}: {}: {} -> {}",
            one.severity, event, one.node, one.text, one.subject, one.detail, one.remedy
        );
        if one.subject != SUBJECT {
            let mut message = json!(one);
            if let Some(members) = message.as_object_mut() {
                members.insert("event".into(), event.into());
                members.insert("text".into(), text.into());
            }
            // Dropped at the limit.
            drop(self.queue.try_send(message.to_string()));
        }
    }
}

async fn send(url: Uri, shared: Arc<Shared>, mut messages: Receiver<String>) {
    let conditions = &shared.reports.conditions;
    // Reads the root certificates once. Without a connector, each message is reported as failed.
    let target = target(&url);
    while let Some(message) = messages.recv().await {
        for attempt in 1..=TRIES {
            match post(&target, &url, &message).await {
                Ok(()) => {
                    conditions.clear(ConditionKind::TelemetryFails, SUBJECT);
                    break;
                }
                Err(problem) => {
                    let finding = Finding::new(ConditionKind::TelemetryFails, SUBJECT, problem);
                    conditions.report(finding, Some(REPORTED_FOR));
                    if attempt < TRIES {
                        sleep(RETRY_PAUSE).await;
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

async fn post(target: &Result<(Address, HttpClient), String>, url: &Uri, message: &str) -> Result<(), String> {
    let (address, client) = target.as_ref().map_err(String::clone)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path).header(CONTENT_TYPE, "application/json").body(Body::from(message.to_owned()));
    let request = request.map_err(|error| error.to_string())?;
    let answer = client.fetch(address, request, 64 * 1024, POST_TIMEOUT).await.map_err(|error| error.to_string())?;
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
