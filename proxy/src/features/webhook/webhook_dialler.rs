//! Dialler of a webhook: runs the app server's end of each in-memory link.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytestring::ByteString;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderMap, Request, Response};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;
use trunkline_link::{LinkEnd, LinkSocket, request_handshake};
use trunkline_protocol::access_token::User;
use trunkline_protocol::manifest::USER_HEADER;
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::service::{Ping, Role, ServiceMessage};

use super::answer::WebhookAnswer;
use super::connect_answer::ConnectVerdict;
use super::connect_question::facts;
use super::event_sender::EventSender;
use super::loopback_server::{LoopbackServer, Post};
use super::webhook_event::WebhookEvent;
use super::webhook_hub::WebhookHub;
use crate::engine::upstream::{BackEndState, MemoryDialler, MemoryLink, UpstreamWebSocket};

/// Interval of keep-alives. The node drops a link after 30 s of silence.
const PING_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct WebhookDialler(pub(super) Arc<WebhookHub>);

impl MemoryDialler for WebhookDialler {
    fn dial(&self, hub: &str, _node: &str, _boot: &str, slot: usize, link: MemoryLink) {
        let (hub, of_hub) = (hub.to_owned(), self.0.clone());
        // Runs on the dialling shard's thread.
        tokio::spawn(async move {
            let end = serve(of_hub, link).await;
            debug!(hub, slot, reason = end.reason(Role::AppServer), "link to a webhook closed");
        });
    }

    /// Asks the back end whether a client may connect.
    fn ask(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let hub = self.0.clone();
        Box::pin(async move { admission(hub, request.headers()).await.into_response() })
    }

    fn place(&self) -> String {
        format!("webhook {}", self.0.template)
    }

    fn back_end(&self) -> Option<BackEndState> {
        Some(self.0.state())
    }
}

async fn admission(hub: Arc<WebhookHub>, head: &HeaderMap) -> ConnectVerdict {
    let event = match WebhookEvent::of_connect(hub.place(), head, &hub.settings().connect_items) {
        Ok(event) => event,
        Err(error) => return ConnectVerdict::Unknown(error.to_string()),
    };
    // The connection does not exist yet.
    let post = Post { connection_id: ByteString::new(), facts: Arc::new(facts(head)), event };
    let permit = hub.request_permit().await;
    match EventSender::new(hub.clone()).deliver(permit, post).await {
        (_, WebhookAnswer::Verdict(ConnectVerdict::Granted(decision))) => {
            ConnectVerdict::Granted(Box::new(bound_to_token(*decision, head)))
        }
        (_, WebhookAnswer::Verdict(admission)) => admission,
        _ => ConnectVerdict::Unknown(String::new()),
    }
}

/// A connection ends with the presented access token, whichever user the back end names. The user of the token keeps
/// its claims.
fn bound_to_token(mut decision: Decision, head: &HeaderMap) -> Decision {
    let token = head.get(USER_HEADER).and_then(|value| value.to_str().ok()).and_then(User::from_header);
    let token = token.unwrap_or_default();
    decision.user = decision.user.take().filter(|user| token.id.as_ref() != Some(user));
    decision.expires_s = token.expires_s;
    decision
}

async fn serve(hub: Arc<WebhookHub>, link: MemoryLink) -> LinkEnd {
    let mut socket = LinkSocket::<UpstreamWebSocket>::from(link);
    if let Err(end) = request_handshake(&mut socket).await {
        return end;
    }
    let LinkSocket { mut reader, mut writer } = socket;
    let (mut server, events) = (LoopbackServer::new(hub.clone()), EventSender::new(hub.clone()));
    // At most one permit is awaited, so waiting requests are plain values instead of futures.
    let (mut permits, mut requests) = (FuturesUnordered::new(), FuturesUnordered::new());
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = hub.reported();
    loop {
        if !server.has_next_post() {
            // Otherwise the link would hold an unused permit.
            permits.clear();
        } else if permits.is_empty() {
            permits.push(hub.request_permit());
        }
        let frames = tokio::select! {
            message = reader.next_message() => match message {
                Ok(Some(message)) => server.take_message(message),
                Ok(None) => Vec::new(),
                Err(end) => return end,
            },
            Some(permit) = permits.next() => {
                requests.extend(server.next_post().map(|post| events.deliver(permit, post)));
                Vec::new()
            }
            Some((id, answer)) = requests.next() => server.answered(&id, answer),
            until = next_reported(&mut reported) => server.close_reported(until),
            _ = pings.tick() => vec![ServiceMessage::Ping(Ping::default())],
        };
        // Reading a link never waits for an app server, so this wait is short.
        if !frames.is_empty()
            && let Err(end) = writer.send_messages(&frames).await
        {
            return end;
        }
    }
}

/// Next position up to which other nodes have reported the ends of clients; never, if they report none.
async fn next_reported(reported: &mut Option<watch::Receiver<u64>>) -> u64 {
    if let Some(positions) = reported
        && positions.changed().await.is_ok()
    {
        return *positions.borrow_and_update();
    }
    std::future::pending().await
}
