//! Sender of a link's events: one signed request per event with a deadline, retried if harmless.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Body;
use bytestring::ByteString;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::LengthLimitError;
use tokio::time::{Instant, sleep};
use trunkline_protocol::key::AccessKey;

use super::answer::{self, Reply, ReplyError, WebhookAnswer};
use super::client_fact::header_text;
use super::connect_answer::ConnectVerdict;
use super::loopback_server::Post;
use super::webhook_event::EventKind;
use super::webhook_hub::{RequestPermit, WebhookFailure, WebhookHub};
use crate::ground::clock::unix_seconds;
use crate::ground::condition::quoted;
use crate::ground::net::http_client::{HttpClient, HttpError, without_byte_order_mark};

/// Pauses between attempts. All attempts share one deadline.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(1000)];

/// Timeout for asking whether a client may connect. Official clients wait 15 s for the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a reply that operators see if it is a problem.
const SHOWN_BYTES: usize = 80;

const CONNECTION_ID: HeaderName = HeaderName::from_static("x-asrs-connection-id");
const HUB: HeaderName = HeaderName::from_static("x-asrs-hub");
const CATEGORY: HeaderName = HeaderName::from_static("x-asrs-category");
const EVENT: HeaderName = HeaderName::from_static("x-asrs-event");
const USER_ID: HeaderName = HeaderName::from_static("x-asrs-user-id");
const USER_CLAIMS: HeaderName = HeaderName::from_static("x-asrs-user-claims");
const CLIENT_QUERY: HeaderName = HeaderName::from_static("x-asrs-client-query");
const SIGNATURE: HeaderName = HeaderName::from_static("x-asrs-signature");

/// Sequence number of an event within its connection, equal in all attempts.
const EVENT_NUMBER: HeaderName = HeaderName::from_static("x-trunkline-event-number");

/// Signature of the whole request, in addition to Azure's.
const SIGNED_REQUEST: HeaderName = HeaderName::from_static("x-trunkline-signature");

/// Data that the back end gave the client in its answer to `connect`.
const CLIENT_DATA: HeaderName = HeaderName::from_static("x-trunkline-client-data");

/// Headers with signed values, in this order. Their number is fixed, so that a value can't be taken for the body.
const SIGNED: [HeaderName; 10] =
    [CONNECTION_ID, HUB, CATEGORY, EVENT, EVENT_NUMBER, USER_ID, USER_CLAIMS, CLIENT_QUERY, CLIENT_DATA, CONTENT_TYPE];

#[derive(Debug, Clone)]
pub(super) struct EventSender {
    client: HttpClient,
    hub: Arc<WebhookHub>,
}

impl EventSender {
    pub(super) fn new(hub: Arc<WebhookHub>) -> Self {
        Self { client: hub.http_client(), hub }
    }

    /// Sends an event with a permit and interprets the response; also returns the connection id.
    pub(super) async fn deliver(&self, permit: RequestPermit<'_>, post: Post) -> (ByteString, WebhookAnswer) {
        let event = &post.event;
        let mut pauses = PAUSES.iter();
        let (mut permit, mut deadline) = (permit, None);
        loop {
            let (reply, media_type, until) = self.attempt(permit, &post, &mut deadline).await;
            let (answer, outcome, problem) = answer::read_answer(&event.kind, &reply);
            let counters = self.hub.counters();
            counters.requests.of(outcome).increment();
            let pause =
                pauses.next().filter(|pause| may_repeat(&event.kind, &reply) && Instant::now() + **pause < until);
            // A 403 is about this client; to a wrong secret the back end answers 401.
            let is_refusal =
                matches!(answer, WebhookAnswer::Verdict(ConnectVerdict::Refused(StatusCode::FORBIDDEN, _)));
            match problem.filter(|_| !is_refusal) {
                Some(problem) => {
                    let problem = format!("{problem}{}", described(&reply, &media_type));
                    let failure = failure(&event.kind, &reply);
                    self.hub.note_failure(&post.connection_id, event, &problem, failure);
                }
                None => self.hub.note_answer(&event.kind),
            }
            let Some(pause) = pause else { return (post.connection_id, answer) };
            counters.retries.increment();
            sleep(*pause).await;
            permit = self.hub.request_permit().await;
        }
    }

    /// Makes one attempt, holding its permit to the end. Returns the reply, the `Content-Type` of its body, and the
    /// deadline of all attempts, which the first one starts.
    async fn attempt(
        &self,
        _permit: RequestPermit<'_>,
        post: &Post,
        deadline: &mut Option<Instant>,
    ) -> (Reply, String, Instant) {
        let event = &post.event;
        let begun = Instant::now();
        let limit = self.time_limit(&event.kind);
        let until = *deadline.get_or_insert(begun + limit);
        let max_bytes = self.hub.settings().answer_max_bytes;
        let mut request = Request::post(event.target.clone()).body(Body::from(event.body.clone())).unwrap_or_default();
        *request.headers_mut() = self.head(post);
        let address = self.hub.template.address();
        let fetched = self.client.fetch(address, request, max_bytes, until - begun).await;
        let duration = begun.elapsed();
        self.hub.counters().durations.observe_duration(duration);
        self.hub.note_duration(duration);
        let media_type = fetched.as_ref().ok().and_then(|answer| answer.headers().get(CONTENT_TYPE));
        let media_type = media_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let reply = fetched.map(|answer| (answer.status(), without_byte_order_mark(answer.into_body())));
        let reply = reply.map_err(|error| reply_error(error, max_bytes, limit));
        (reply, media_type.unwrap_or_default(), until)
    }

    fn time_limit(&self, kind: &EventKind) -> Duration {
        let limit = self.hub.settings().answer_timeout;
        if *kind == EventKind::Connect { limit.min(CONNECT_TIMEOUT) } else { limit }
    }

    fn head(&self, Post { connection_id, facts, event }: &Post) -> HeaderMap {
        let (mut head, secrets) = (HeaderMap::new(), self.hub.secrets());
        head.insert(CONTENT_TYPE, HeaderValue::from_static(event.kind.content_type()));
        if !connection_id.is_empty() {
            head.insert(CONNECTION_ID, header_text(connection_id));
        }
        head.insert(HUB, header_text(self.hub.name()));
        head.insert(CATEGORY, HeaderValue::from_static(event.kind.category()));
        head.insert(EVENT, header_text(&event.name));
        head.insert(SIGNATURE, signature_value(&signatures(&secrets, connection_id.as_bytes())));
        head.insert(EVENT_NUMBER, event.number.into());
        let facts = [
            (USER_ID, &facts.user),
            (USER_CLAIMS, &facts.claims),
            (CLIENT_QUERY, &facts.query),
            (CLIENT_DATA, &facts.data),
        ];
        for (name, value) in facts {
            head.extend(value.clone().map(|value| (name, value)));
        }
        let signed = signed_request(&secrets, unix_seconds(), (&head, &SIGNED), &event.body);
        head.insert(SIGNED_REQUEST, signature_value(&signed));
        self.hub.add_headers(&mut head);
        head
    }
}

fn signature_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Whether a retry is harmless. A call is sent at most once, so it is retried only if nothing was sent; connection
/// events may be repeated.
fn may_repeat(kind: &EventKind, reply: &Reply) -> bool {
    match reply {
        Err(ReplyError::Unreachable(_)) => true,
        Err(ReplyError::Broken(_) | ReplyError::Timeout(_)) => !kind.is_message(),
        Ok((status, _)) => {
            let is_for_later = status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS;
            is_for_later && !kind.is_message()
        }
        Err(ReplyError::TooLarge(_)) => false,
    }
}

fn reply_error(error: HttpError, max_bytes: usize, limit: Duration) -> ReplyError {
    match error {
        HttpError::Request(_) | HttpError::Connect(_) => ReplyError::Unreachable(error.to_string()),
        HttpError::Body(source) if source.is::<LengthLimitError>() => ReplyError::TooLarge(max_bytes),
        HttpError::Broken(_) | HttpError::Body(_) => ReplyError::Broken(error.to_string()),
        HttpError::Timeout(_) => ReplyError::Timeout(limit.as_secs()),
    }
}

/// Type and first bytes of a reply, for the operator.
fn described(reply: &Reply, media_type: &str) -> String {
    let Ok((status, body)) = reply else { return String::new() };
    let body = String::from_utf8_lossy(body.get(..SHOWN_BYTES).unwrap_or(body));
    format!(", got status {}, type {}, body {}", status.as_u16(), quoted(media_type), quoted(&body))
}

fn failure(kind: &EventKind, reply: &Reply) -> WebhookFailure {
    match reply {
        Ok((StatusCode::UNAUTHORIZED, _)) => WebhookFailure::Refusal,
        Ok((status, _)) if status.is_client_error() && kind.is_message() => WebhookFailure::OfClient,
        Ok((StatusCode::FORBIDDEN, _)) => WebhookFailure::Refusal,
        Ok((status, _)) if status.is_client_error() => WebhookFailure::Rejection,
        _ => WebhookFailure::Fault,
    }
}

/// Signs a text with each key, so that a back end with any of them can verify it.
pub(super) fn signatures(keys: &[AccessKey], text: &[u8]) -> String {
    let all: Vec<_> = keys.iter().map(|key| signature(key, text)).collect();
    all.join(",")
}

/// Signs a request at a time: the time, these headers' values and the body, separated by line feeds.
///
/// Azure's signature covers only the connection id, so an observer could forge further events. Ours covers the time,
/// headers and body.
pub(super) fn signed_request(
    keys: &[AccessKey],
    now_s: u64,
    (head, names): (&HeaderMap, &[HeaderName]),
    body: &[u8],
) -> String {
    let mut text = now_s.to_string().into_bytes();
    for name in names {
        let values: Vec<_> = head.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        text.push(b'\n');
        // Joined the way recipients join repeated headers.
        text.extend(values.join(b", ".as_slice()));
    }
    text.push(b'\n');
    text.extend(body);
    format!("t={now_s},{}", signatures(keys, &text))
}

fn signature(key: &AccessKey, text: &[u8]) -> String {
    let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()), text);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;
    use trunkline_protocol::hub::HubProtocol;

    use super::*;

    #[test]
    fn no_two_requests_have_the_same_signature() {
        let key = [trunkline_protocol::key::AccessKey::new("the secret of a webhook").unwrap()];
        let signed = |head: &[(HeaderName, &'static str)], body: &[u8]| {
            let head = head.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
            signed_request(&key, 1, (&head, &SIGNED), body)
        };
        let all = [
            signed(&[], b"x\n\x96"),
            signed(&[(CLIENT_DATA, "x")], b"\x96"),
            signed(&[(CLIENT_DATA, "x")], b"\n\x96"),
            signed(&[(CONTENT_TYPE, "x")], b"\x96"),
            signed(&[(CLIENT_QUERY, "?room=1")], b""),
            signed(&[(CLIENT_QUERY, "?room=2")], b""),
        ];
        assert_eq!(std::collections::HashSet::from(all).len(), 6);
    }

    #[test]
    fn a_call_is_repeated_only_if_nothing_of_it_was_sent() {
        let call = EventKind::Message { protocol: HubProtocol::Json, invocation_id: None };
        let replies = [
            Err(ReplyError::Unreachable(String::new())),
            Err(ReplyError::Broken(String::new())),
            Err(ReplyError::Timeout(1)),
            Ok((StatusCode::SERVICE_UNAVAILABLE, Bytes::new())),
            Ok((StatusCode::TOO_MANY_REQUESTS, Bytes::new())),
            Ok((StatusCode::NOT_FOUND, Bytes::new())),
            Err(ReplyError::TooLarge(1)),
        ];
        let repeated = |kind: &EventKind| replies.iter().map(|reply| may_repeat(kind, reply)).collect::<Vec<_>>();
        assert_eq!(repeated(&call), [true, false, false, false, false, false, false]);
        for kind in [EventKind::Connect, EventKind::Connected, EventKind::Disconnected] {
            assert_eq!(repeated(&kind), [true, true, true, true, true, false, false]);
        }
    }

    fn keys() -> [AccessKey; 2] {
        ["the first key of them", "the second key of them"].map(|key| AccessKey::new(key).unwrap())
    }

    #[test]
    fn each_key_signs_as_other_tools_do() {
        // From `printf connection-1 | openssl dgst -sha256 -hmac KEY`.
        let expected = "sha256=e5a08efedc68c522be1d3271fe2f8475fcd4e4d0ca14527c548fb1442f9dd9cb,\
                        sha256=0c4574f4bfcd173823033972e74eb4df4afe9a8f876533e653800a4423f2ffb4";
        assert_eq!(signatures(&keys(), b"connection-1"), expected);
    }

    #[test]
    fn a_request_is_signed_with_its_time_its_headers_and_its_body() {
        let names = ["x-id", "x-claim", "x-none"].map(HeaderName::from_static);
        let mut head = HeaderMap::new();
        head.insert("x-id", HeaderValue::from_static("connection-1"));
        head.append("x-claim", HeaderValue::from_static("role: a"));
        head.append("x-claim", HeaderValue::from_static("role: b"));
        let [key, _] = keys();
        let signed = signed_request(std::slice::from_ref(&key), 1_700_000_000, (&head, &names), b"{}");
        let text = b"1700000000\nconnection-1\nrole: a, role: b\n\n{}";
        assert_eq!(signed, format!("t=1700000000,{}", signatures(&[key], text)));
    }
}
