//! Converts watched pieces to lines of a recording. Pure.
//!
//! Decoding and redaction run on the observer's thread. A message without secrets keeps its bytes. With secrets, it is
//! re-encoded without them and marked, because a replay can't compare it. If secrets can't be searched for, the payload
//! is omitted.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use trunkline_protocol::hub::{HubMessage, HubProtocol, Outcome, Payload, RECORD_SEPARATOR};
use trunkline_protocol::service::RawKind;

use super::hub_part::{HubPart, take_parts};
use super::lenient_value::LenientValue;
use super::node_watch::{PayloadView, change_words, micros};
use super::recording_line::{CloseLine, MessageLine, OpenLine, RecordedPayload, RecordingLine};
use crate::shard::Content;
use crate::watch::{
    ConnectionChange, MessageDirection, WatchEvent, WatchPiece, WatchedBytes, WatchedConnection, WatchedOpening,
    redaction,
};

/// Larger messages are recorded by size only: searching them for secrets would block the observer.
const REDACTED_MAX_BYTES: usize = 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
enum Redacted {
    /// No secrets found; the payload is kept.
    Nothing,
    /// Payload with secrets replaced.
    Secrets(RecordedPayload),
    /// Unreadable; the payload is omitted.
    Everything,
}

/// Context for the lines of one piece.
struct Lines<'a> {
    at_us: u64,
    connection: &'a WatchedConnection,
    payloads: PayloadView,
}

/// Returns the lines of a piece. Pings, acknowledgements and close messages are skipped, because each side generates
/// them itself.
pub(super) fn lines(piece: &WatchPiece, payloads: PayloadView) -> Vec<RecordingLine> {
    let at_us = micros(piece.at);
    let of = |connection| Lines { at_us, connection, payloads };
    match &piece.event {
        WatchEvent::Opening(connection, opening) => vec![RecordingLine::Open(Box::new(of(connection).open(opening)))],
        WatchEvent::Bytes(connection, way, bytes) => {
            let lines = match bytes {
                WatchedBytes::Handshake(bytes) => vec![of(connection).handshake(bytes)],
                WatchedBytes::Messages(bytes, kind) => of(connection).messages(bytes, *kind),
            };
            let line = if *way == MessageDirection::Up { RecordingLine::Up } else { RecordingLine::Down };
            lines.into_iter().map(line).collect()
        }
        WatchEvent::Connection(connection, change @ (ConnectionChange::Closed(..) | ConnectionChange::Moved)) => {
            // No cause: the connection is now at another node.
            let (word, cause, detail) = change_words(change);
            let (connection, cause) = (connection.id.to_string(), cause.unwrap_or_else(|| word.into()));
            vec![RecordingLine::Close(CloseLine { at_us, connection, cause, detail })]
        }
        WatchEvent::Connection(..) | WatchEvent::Message(_) | WatchEvent::Hop(..) => Vec::new(),
    }
}

impl Lines<'_> {
    /// Line for an opened connection. The client's headers, claims and query count as payload.
    fn open(&self, opening: &WatchedOpening) -> OpenLine {
        let WatchedOpening { open, transport, was_open } = opening;
        let plain = OpenLine {
            at_us: self.at_us,
            connection: self.connection.id.to_string(),
            protocol: self.protocol().map(|protocol| protocol.name().into()),
            transport: transport.name().into(),
            user: self.connection.user.clone(),
            was_open: *was_open,
            ..OpenLine::default()
        };
        if self.payloads == PayloadView::Hidden {
            return plain;
        }
        let mut redacted = false;
        let mut clean = |name: &str, value: &str| {
            let clean = match redaction::is_secret(name) {
                true => redaction::REDACTED.into(),
                false => redaction::text(value),
            };
            redacted |= clean != value;
            clean.into_owned()
        };
        let claims = open.claims.iter().map(|(name, value)| (name.to_string(), clean(name, value))).collect();
        let headers = open.headers.iter();
        let headers = headers
            .map(|(name, values)| (name.to_string(), values.iter().map(|value| clean(name, value)).collect()))
            .collect();
        let query = open.query.as_ref().map(|query| clean("", query));
        OpenLine { claims, headers, query, redacted, ..plain }
    }

    fn handshake(&self, bytes: &Bytes) -> MessageLine {
        self.with_payload(self.line("handshake", bytes.len()), bytes, RawKind::Text, || redact_json(bytes))
    }

    fn messages(&self, bytes: &Bytes, kind: RawKind) -> Vec<MessageLine> {
        match self.protocol() {
            Some(protocol) => {
                let parts = take_parts(protocol, &mut bytes.clone());
                parts.into_iter().map(|part| self.hub_message(protocol, part)).collect()
            }
            None => vec![self.with_payload(self.line("raw", bytes.len()), bytes, kind, || redact_raw(bytes))],
        }
    }

    fn hub_message(&self, protocol: HubProtocol, part: HubPart) -> MessageLine {
        let HubPart { whole, kind, target, invocation_id, message } = part;
        let line = MessageLine { target, invocation_id, ..self.line(kind, whole.len()) };
        let form = if protocol.is_binary() { RawKind::Binary } else { RawKind::Text };
        self.with_payload(line, &whole, form, || match (protocol, message) {
            (HubProtocol::Json, _) => redact_json(&whole),
            (_, Some(message)) => redact_message(protocol, message),
            (_, None) => Redacted::Everything,
        })
    }

    fn protocol(&self) -> Option<HubProtocol> {
        match self.connection.content {
            Content::Hub(protocol) => Some(protocol),
            Content::Raw => None,
        }
    }

    fn line(&self, kind: &str, bytes: usize) -> MessageLine {
        let (at_us, connection) = (self.at_us, self.connection.id.to_string());
        MessageLine { at_us, connection, kind: kind.into(), bytes: bytes as u64, ..MessageLine::default() }
    }

    /// Adds the redacted payload, if requested.
    fn with_payload(
        &self,
        line: MessageLine,
        bytes: &Bytes,
        form: RawKind,
        redact: impl FnOnce() -> Redacted,
    ) -> MessageLine {
        if self.payloads == PayloadView::Hidden {
            return line;
        }
        if bytes.len() > REDACTED_MAX_BYTES {
            return MessageLine { redacted: true, ..line };
        }
        match redact() {
            Redacted::Nothing => line.with_payload(match (form, std::str::from_utf8(bytes)) {
                (RawKind::Text, Ok(text)) => RecordedPayload::Text(text.into()),
                _ => RecordedPayload::Binary(bytes.clone()),
            }),
            Redacted::Secrets(clean) => MessageLine { redacted: true, ..line.with_payload(clean) },
            Redacted::Everything => MessageLine { redacted: true, ..line },
        }
    }
}

/// Redacts a complete JSON message and its separator. Fields unknown to the hub protocol may contain secrets, too.
fn redact_json(whole: &Bytes) -> Redacted {
    let body = whole.strip_suffix(&[RECORD_SEPARATOR]).unwrap_or(whole);
    match std::str::from_utf8(body) {
        Ok(text) if serde_json::from_str::<Value>(text).is_ok() => redact_text(text, "\u{1e}"),
        // Nested too deeply or not JSON: names of secrets can't be found.
        _ => Redacted::Everything,
    }
}

fn redact_raw(message: &Bytes) -> Redacted {
    match std::str::from_utf8(message) {
        Ok(text) => redact_text(text, ""),
        // Binary data has no names or words.
        Err(_) => Redacted::Nothing,
    }
}

/// Redacts a text and appends `end`.
fn redact_text(text: &str, end: &str) -> Redacted {
    let clean = match serde_json::from_str::<Value>(text) {
        Ok(value) => {
            let clean = redaction::value(value.clone());
            (clean != value).then(|| clean.to_string())
        }
        Err(_) => {
            let clean = redaction::text(text);
            (clean != text).then(|| clean.into_owned())
        }
    };
    match clean {
        Some(clean) => Redacted::Secrets(RecordedPayload::Text(clean + end)),
        None => Redacted::Nothing,
    }
}

fn redact_message(protocol: HubProtocol, mut message: HubMessage) -> Redacted {
    let mut has_secrets = false;
    if redact_fields(protocol, &mut message, &mut has_secrets).is_none() {
        return Redacted::Everything;
    }
    if !has_secrets {
        return Redacted::Nothing;
    }
    let mut out = BytesMut::new();
    protocol.encode(&message, &mut out);
    Redacted::Secrets(RecordedPayload::Binary(out.freeze()))
}

/// Replaces the secrets of a message; `None` if a part is unreadable.
fn redact_fields(protocol: HubProtocol, message: &mut HubMessage, has_secrets: &mut bool) -> Option<()> {
    let headers = match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => {
            for argument in &mut call.arguments {
                redact_payload(protocol, argument, has_secrets)?;
            }
            &mut call.headers
        }
        HubMessage::StreamItem(item) => {
            redact_payload(protocol, &mut item.item, has_secrets)?;
            &mut item.headers
        }
        HubMessage::Completion(completion) => {
            match &mut completion.outcome {
                Outcome::Void => {}
                Outcome::Value(result) => redact_payload(protocol, result, has_secrets)?,
                Outcome::Error(error) => {
                    let clean = redaction::text(error).into_owned();
                    *has_secrets |= clean != **error;
                    *error = clean.into();
                }
            }
            &mut completion.headers
        }
        HubMessage::CancelInvocation(cancel) => &mut cancel.headers,
        HubMessage::Ping | HubMessage::Close(_) | HubMessage::Ack { .. } | HubMessage::Sequence { .. } => {
            return Some(());
        }
    };
    for (name, value) in headers.iter_mut().filter(|(name, _)| redaction::is_secret(name)) {
        *has_secrets |= !name.is_empty();
        *value = redaction::REDACTED.into();
    }
    Some(())
}

fn redact_payload(protocol: HubProtocol, payload: &mut Payload, has_secrets: &mut bool) -> Option<()> {
    let LenientValue(value) = protocol.value(payload).ok()?;
    let clean = redaction::value(value.clone());
    if clean != value {
        *has_secrets = true;
        *payload = protocol.payload(&clean).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use trunkline_protocol::cause::Cause;
    use trunkline_protocol::hub::{Completion, Invocation, next_frame};
    use trunkline_protocol::manifest::Transport;
    use trunkline_protocol::service::OpenConnection;

    use super::*;
    use crate::upstream::HubIndex;

    const JSON: Content = Content::Hub(HubProtocol::Json);
    const PACK: Content = Content::Hub(HubProtocol::MessagePack);

    fn connection(content: Content) -> Arc<WatchedConnection> {
        Arc::new(WatchedConnection::made_up("c", HubIndex::from(0), Some("ann"), content))
    }

    fn told(event: WatchEvent, payloads: PayloadView) -> Vec<RecordingLine> {
        lines(&WatchPiece { at: Duration::from_micros(7), event }, payloads)
    }

    fn messages(content: Content, way: MessageDirection, bytes: Bytes, kind: RawKind) -> WatchEvent {
        WatchEvent::Bytes(connection(content), way, WatchedBytes::Messages(bytes, kind))
    }

    fn down(content: Content, bytes: impl Into<Bytes>) -> Vec<MessageLine> {
        let told = told(messages(content, MessageDirection::Down, bytes.into(), RawKind::Text), PayloadView::Shown);
        let message = |line| match line {
            RecordingLine::Down(message) => message,
            other => panic!("{other:?}"),
        };
        told.into_iter().map(message).collect()
    }

    fn call(protocol: HubProtocol, argument: &Value) -> Bytes {
        let arguments = vec![protocol.payload(argument).unwrap()];
        let call = Invocation { target: "Say".into(), arguments, ..Invocation::default() };
        let mut out = BytesMut::new();
        protocol.encode(&HubMessage::Invocation(call), &mut out);
        out.freeze()
    }

    #[test]
    fn messages_without_secrets_keep_every_byte_in_both_protocols() {
        // Spaces, an unusual order and an unusual number format.
        let odd = "{ \"arguments\":[1.50, \"\\u00e4\", \"{ \\\"a\\\": 2.50 }\"],\"target\":\"Say\",\"type\":1}\u{1e}";
        let told = down(JSON, odd);
        assert_eq!((told[0].text.as_deref(), told[0].redacted), (Some(odd), false));
        assert_eq!((told[0].kind.as_str(), told[0].target.as_deref()), ("invocation", Some("Say")));
        let packed = call(HubProtocol::MessagePack, &Value::from("hello"));
        let told = down(PACK, packed.clone());
        assert_eq!(told[0].payload().unwrap(), Some(RecordedPayload::Binary(packed.clone())));
        assert_eq!((told[0].bytes, told[0].redacted), (packed.len() as u64, false));
    }

    #[test]
    fn messages_with_secrets_are_marked_and_lose_only_these() {
        let secret = serde_json::json!({ "user": "ann", "password": "hush" });
        for (content, protocol) in [(JSON, HubProtocol::Json), (PACK, HubProtocol::MessagePack)] {
            let bytes = call(protocol, &secret);
            let told = down(content, bytes.clone());
            assert!(told[0].redacted && told[0].bytes == bytes.len() as u64);
            let payload = told[0].payload().unwrap().unwrap();
            let whole = &payload.clone().into_bytes();
            let shows = |text: &str| whole.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(shows("ann") && shows("[redacted]") && !shows("hush"), "{payload:?}");
            assert!(next_frame(protocol, whole, usize::MAX).unwrap().is_some(), "it is a whole message");
        }
    }

    #[test]
    fn messages_that_cannot_be_searched_for_secrets_have_no_payload() {
        let large = call(HubProtocol::Json, &Value::from("x".repeat(REDACTED_MAX_BYTES)));
        let told = down(JSON, large.clone());
        assert_eq!((told[0].kind.as_str(), told[0].redacted, told[0].payload().unwrap()), ("large", true, None));
        assert_eq!(told[0].bytes, large.len() as u64);
        let told = down(PACK, &b"\x02\xc1\xc1"[..]);
        assert_eq!((told[0].kind.as_str(), told[0].redacted, told[0].payload().unwrap()), ("other", true, None));
    }

    #[test]
    fn each_message_of_a_frame_has_its_line_and_keep_alives_have_none() {
        let two = "{\"type\":6}\u{1e}{\"type\":3,\"invocationId\":\"4\"}\u{1e}{\"type\":7}\u{1e}";
        let told = down(JSON, two);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].kind.as_str(), told[0].invocation_id.as_deref()), ("completion", Some("4")));
        let mut error = BytesMut::new();
        let outcome = Outcome::Error("token=abcdef".into());
        let completion = Completion { headers: Vec::new(), invocation_id: "4".into(), outcome };
        HubProtocol::MessagePack.encode(&HubMessage::Completion(completion), &mut error);
        assert!(down(PACK, error.freeze())[0].redacted);
    }

    #[test]
    fn raw_messages_are_complete_and_marked_as_text_or_binary() {
        for (kind, bytes, text) in [
            (RawKind::Text, &b"hello"[..], Some("hello")),
            (RawKind::Binary, &b"hello"[..], None),
            (RawKind::Binary, &b"\xff\x00"[..], None),
        ] {
            let event = messages(Content::Raw, MessageDirection::Up, Bytes::from_static(bytes), kind);
            let RecordingLine::Up(message) = &told(event, PayloadView::Shown)[0] else { panic!() };
            assert_eq!((message.text.as_deref(), message.kind.as_str()), (text, "raw"));
            assert_eq!(message.payload().unwrap().unwrap().into_bytes(), bytes);
        }
    }

    #[test]
    fn an_opening_loses_its_secrets_and_without_payloads_all_that_the_client_sent() {
        let opening = || {
            let open = OpenConnection {
                connection_id: "c".into(),
                claims: vec![("role".into(), "cook".into()), ("refresh_token".into(), "abc".into())],
                headers: vec![("Cookie".into(), vec!["sid=1".into()]), ("X-App".into(), vec!["kept".into()])],
                query: Some("?room=1&access_token=abc".into()),
                protocol: None,
            };
            let opening = WatchedOpening { open, transport: Transport::LongPolling, was_open: true };
            WatchEvent::Opening(connection(JSON), Box::new(opening))
        };
        let RecordingLine::Open(open) = &told(opening(), PayloadView::Shown)[0] else { panic!() };
        assert_eq!(open.claims[0].1, "cook");
        assert_eq!(open.headers[1].1, ["kept"]);
        assert_eq!(open.query.as_deref(), Some("?room=1&access_token=[redacted]"));
        assert_eq!((open.claims[1].1.as_str(), open.headers[0].1[0].as_str()), ("[redacted]", "[redacted]"));
        assert!(open.redacted && open.was_open && open.protocol.as_deref() == Some("json"));
        assert_eq!((open.transport.as_str(), open.user.as_deref()), ("LongPolling", Some("ann")));
        let RecordingLine::Open(open) = &told(opening(), PayloadView::Hidden)[0] else { panic!() };
        assert!(open.claims.is_empty() && open.headers.is_empty() && open.query.is_none() && !open.redacted);
    }

    #[test]
    fn a_close_has_a_cause_and_a_move_has_none() {
        let closed = ConnectionChange::Closed(Cause::ClientClosed, None);
        for (change, label) in [(closed, "client_closed"), (ConnectionChange::Moved, "moved")] {
            let told = told(WatchEvent::Connection(connection(JSON), change), PayloadView::Hidden);
            let RecordingLine::Close(close) = &told[0] else { panic!("{told:?}") };
            assert_eq!((close.cause.as_str(), close.at_us), (label, 7));
        }
    }

    #[test]
    fn without_payloads_messages_have_none() {
        let bytes = call(HubProtocol::Json, &Value::from("hello"));
        let told = told(messages(JSON, MessageDirection::Up, bytes, RawKind::Text), PayloadView::Hidden);
        let RecordingLine::Up(message) = &told[0] else { panic!("{told:?}") };
        assert_eq!(
            (message.payload().unwrap(), message.redacted, message.target.as_deref()),
            (None, false, Some("Say"))
        );
    }
}
