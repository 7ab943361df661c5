//! Events of client connections, each one request to a back end.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use http::HeaderMap;
use http::uri::PathAndQuery;
use serde::Serialize;
use trunkline_protocol::hub::{HubMessage, HubProtocol, whole_messages};

use super::connect_question;
use crate::ground::config::{ConnectItem, ExpandError, TemplateValues, UrlTemplate};

/// Fixed memory charge per event, so that many small events count.
const OVERHEAD_BYTES: usize = 256;

/// Maximum length of a method name, which is part of the URL and a header.
const TARGET_MAX_BYTES: usize = 512;

/// Number of `disconnected` if other nodes report it for a lost node, because they don't know the number of earlier
/// events: the largest integer of JavaScript.
pub(super) const LAST_NUMBER: u64 = (1 << 53) - 1;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct WebhookEvent {
    pub(super) kind: EventKind,
    /// Name in the header: the method or the connection event.
    pub(super) name: ByteString,
    pub(super) target: PathAndQuery,
    pub(super) body: Bytes,
    /// Sequence number within the connection, equal in all attempts.
    pub(super) number: u64,
}

/// Kind of event, which determines the meaning of the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EventKind {
    /// Question whether the client may connect.
    Connect,
    Connected,
    Disconnected,
    /// The end of a connection whose node was lost.
    Lost,
    /// The first connection of a user, over all nodes.
    UserOnline,
    /// The end of the last one.
    UserOffline,
    Message {
        protocol: HubProtocol,
        /// Invocation id; without one, the response is ignored.
        invocation_id: Option<ByteString>,
    },
    /// Stream invocation, to which the back end may send items through the REST data plane.
    Stream {
        protocol: HubProtocol,
        invocation_id: ByteString,
    },
}

/// Error of a call that a webhook can't handle; the text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventError {
    #[error("Streams of the client are not supported: the methods of this hub are served by a webhook.")]
    Stream,
    #[error("Methods of this hub can't be called: it only sends to its clients.")]
    Silent,
    #[error("The name of the method has {0} bytes, at most {TARGET_MAX_BYTES} are allowed.")]
    LongTarget(usize),
    #[error("The name of the method is not supported: {0}.")]
    Target(#[from] ExpandError),
}

/// Body of a connection event, in the format of Azure's service.
#[derive(Serialize)]
struct ConnectionEventBody<'a> {
    #[serde(rename = "type")]
    number: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Body of an event about a user.
#[derive(Serialize)]
struct UserEventBody<'a> {
    #[serde(rename = "userId")]
    user: &'a str,
    /// Time of the state, in milliseconds since 1970.
    #[serde(rename = "time")]
    at_ms: u64,
}

const OPEN_CONNECTION: u8 = 10;
const CLOSE_CONNECTION: u8 = 11;

impl EventKind {
    pub(super) fn category(&self) -> &'static str {
        match self {
            Self::Connect | Self::Connected | Self::Disconnected | Self::Lost => "connections",
            Self::UserOnline | Self::UserOffline => "users",
            Self::Message { .. } | Self::Stream { .. } => "messages",
        }
    }

    pub(super) fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Stream { .. })
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Self::Message { protocol, .. } | Self::Stream { protocol, .. } if protocol.is_binary() => {
                "application/x-msgpack"
            }
            _ => "application/json",
        }
    }
}

impl WebhookEvent {
    /// Event about the connection itself. Fails if the URL can't be built from the hub's name.
    pub(super) fn of_connection(
        (hub, template): (&str, &UrlTemplate),
        kind: EventKind,
        error: Option<&str>,
    ) -> Result<Self, EventError> {
        let (name, number) = match &kind {
            EventKind::Disconnected | EventKind::Lost => ("disconnected", CLOSE_CONNECTION),
            _ => ("connected", OPEN_CONNECTION),
        };
        let body = serde_json::to_vec(&ConnectionEventBody { number, error }).unwrap_or_default().into();
        let target = template.expand(TemplateValues { hub, category: kind.category(), event: name })?;
        Ok(Self { kind, name: ByteString::from_static(name), target, body, number: 0 })
    }

    /// Event about a user. Fails if the URL can't be built from the hub's name.
    pub(super) fn of_user(
        (hub, template): (&str, &UrlTemplate),
        (user, is_online): (&str, bool),
        at_ms: u64,
    ) -> Result<Self, EventError> {
        let (kind, name) = match is_online {
            true => (EventKind::UserOnline, "online"),
            false => (EventKind::UserOffline, "offline"),
        };
        let target = template.expand(TemplateValues { hub, category: kind.category(), event: name })?;
        let body = serde_json::to_vec(&UserEventBody { user, at_ms }).unwrap_or_default().into();
        Ok(Self { kind, name: ByteString::from_static(name), target, body, number: 0 })
    }

    /// Question whether a client may connect, with the listed items of its request. Fails if the URL can't be built
    /// from the hub's name.
    pub(super) fn of_connect(
        (hub, template): (&str, &UrlTemplate),
        head: &HeaderMap,
        items: &[ConnectItem],
    ) -> Result<Self, EventError> {
        let (kind, name) = (EventKind::Connect, "connect");
        let target = template.expand(TemplateValues { hub, category: kind.category(), event: name })?;
        let body = connect_question::body(OPEN_CONNECTION, head, items);
        Ok(Self { kind, name: ByteString::from_static(name), target, body, number: 0 })
    }

    /// Method call, in the hub protocol of its client. Fails if webhooks don't support the call.
    pub(super) fn of_call(
        (hub, template): (&str, &UrlTemplate),
        protocol: HubProtocol,
        message: HubMessage,
    ) -> Result<Self, EventError> {
        let (HubMessage::Invocation(call) | HubMessage::StreamInvocation(call)) = &message else {
            return Err(EventError::Stream);
        };
        if !call.stream_ids.is_empty() {
            return Err(EventError::Stream);
        }
        if call.target.len() > TARGET_MAX_BYTES {
            return Err(EventError::LongTarget(call.target.len()));
        }
        // Copied, because slices would keep the whole received buffer alive.
        let name = ByteString::from(&*call.target);
        let invocation_id = call.invocation_id.as_deref().map(ByteString::from);
        let kind = match (&message, invocation_id) {
            (HubMessage::StreamInvocation(_), Some(invocation_id)) => EventKind::Stream { protocol, invocation_id },
            (_, invocation_id) => EventKind::Message { protocol, invocation_id },
        };
        let target = template.expand(TemplateValues { hub, category: kind.category(), event: &name })?;
        let body = unframed(protocol, &message);
        Ok(Self { kind, name, target, body, number: 0 })
    }

    /// Bytes charged while the event waits.
    pub(super) fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.body.len() + self.name.len() + self.target.as_str().len()
    }
}

/// Encodes a hub message without framing.
fn unframed(protocol: HubProtocol, message: &HubMessage) -> Bytes {
    let mut framed = BytesMut::new();
    protocol.encode(message, &mut framed);
    let framed = framed.freeze();
    whole_messages(protocol, &framed).next().map(|message| framed.slice_ref(message.body)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::{Invocation, Payload};

    use super::*;

    fn template() -> UrlTemplate {
        "http://app/{hub}/{category}/{event}".parse().unwrap()
    }

    fn call(target: &str, invocation_id: Option<&'static str>) -> Invocation {
        let arguments = vec![Payload::new(Bytes::from_static(b"7"))];
        let invocation_id = invocation_id.map(ByteString::from_static);
        Invocation { target: target.into(), invocation_id, arguments, ..Invocation::default() }
    }

    #[test]
    fn events_of_connections_have_the_bodies_of_azure() {
        let event = |kind, error| WebhookEvent::of_connection(("chat", &template()), kind, error).unwrap();
        let connected = event(EventKind::Connected, None);
        assert_eq!((&*connected.name, connected.target.as_str()), ("connected", "/chat/connections/connected"));
        assert_eq!(connected.body, r#"{"type":10}"#);
        assert_eq!(event(EventKind::Disconnected, None).body, r#"{"type":11}"#);
        assert_eq!(event(EventKind::Disconnected, Some("a \"b\"")).body, r#"{"type":11,"error":"a \"b\""}"#);
    }

    #[test]
    fn a_call_is_sent_in_the_protocol_of_its_client_without_framing() {
        let event = |protocol, id| {
            WebhookEvent::of_call(("chat", &template()), protocol, HubMessage::Invocation(call("Say", id))).unwrap()
        };
        let json = event(HubProtocol::Json, Some("1"));
        assert_eq!(json.body, r#"{"type":1,"invocationId":"1","target":"Say","arguments":[7]}"#);
        assert_eq!((json.kind.content_type(), json.target.as_str()), ("application/json", "/chat/messages/Say"));
        let packed = event(HubProtocol::MessagePack, None);
        assert!(packed.body.starts_with(b"\x96\x01\x80\xc0\xa3Say\x91"), "{:?}", packed.body);
        assert_eq!(packed.kind.content_type(), "application/x-msgpack");
    }

    #[test]
    fn a_call_that_no_webhook_can_serve_is_refused() {
        let refused = |call| {
            WebhookEvent::of_call(("chat", &template()), HubProtocol::Json, HubMessage::Invocation(call)).unwrap_err()
        };
        let uploading = Invocation { stream_ids: vec!["1".into()], ..call("Say", None) };
        assert_eq!(refused(uploading), EventError::Stream);
        assert_eq!(refused(call("../x", None)), EventError::Target(ExpandError::Dots));
        assert_eq!(refused(call("", None)), EventError::Target(ExpandError::Empty));
        assert_eq!(refused(call(&"x".repeat(513), None)), EventError::LongTarget(513));
    }
}
