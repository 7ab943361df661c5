//! Lines of a recording: the file format of `trunkline record` and `trunkline replay`.
//!
//! ```text
//!  {"event":"header","format":"trunkline-recording","version":1,"node":…,"hub":…,"startedMs":…,"payloads":true}
//!  {"event":"open","atUs":12,"connection":ID,"protocol":"json","transport":"WebSockets","user":…,"claims":…,…}
//!  {"event":"up","atUs":340,"connection":ID,"kind":"invocation","target":"Say","bytes":52,"text":"…"}
//!  {"event":"down","atUs":910,"connection":ID,"kind":"completion","invocationId":"0","bytes":40,"text":"…"}
//!  {"event":"close","atUs":2200,"connection":ID,"cause":"client_closed"}
//! ```
//!
//! One JSON object per line, ordered by time. Within a version, fields are only added.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Name of the format, in the header.
pub const FORMAT: &str = "trunkline-recording";

/// Version of the format that this node reads and writes.
pub const VERSION: u32 = 1;

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum RecordingLine {
    /// First line of the file.
    Header(RecordingHeader),
    /// A connection has opened.
    Open(Box<OpenLine>),
    /// Message from a client.
    Up(MessageLine),
    /// Message to a client.
    Down(MessageLine),
    /// A connection has closed.
    Close(CloseLine),
    /// Some data was not recorded.
    Lost(LossLine),
}

/// First line: source, hub and start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordingHeader {
    /// Name of the format.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Name of the node.
    pub node: String,
    /// Name of the hub.
    pub hub: String,
    /// Start time in milliseconds since 1970, to which other times are relative.
    pub started_ms: u64,
    /// Whether messages include payloads.
    pub payloads: bool,
}

/// Opening of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenLine {
    /// Time since the start, in microseconds.
    pub at_us: u64,
    /// Id of the client connection.
    pub connection: String,
    /// Hub protocol; `None` at a raw endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Transport of the client.
    pub transport: String,
    /// User of the connection, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Claims as sent to the app server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<(String, String)>,
    /// Headers of the first request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Vec<String>)>,
    /// Query of the first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Already open when the recording, or this file of it, began.
    #[serde(default, skip_serializing_if = "is_false")]
    pub was_open: bool,
    /// Secrets were removed from this line.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redacted: bool,
}

/// Message of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageLine {
    /// Time since the start, in microseconds.
    pub at_us: u64,
    /// Id of the client connection.
    pub connection: String,
    /// Kind of hub message; `handshake`, or `raw` at a raw endpoint.
    pub kind: String,
    /// Method name, if the message has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Id of the invocation or stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// Length with framing, before redaction.
    pub bytes: u64,
    /// All bytes with framing, if valid text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// All bytes in base64, if not valid text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Secrets were removed, or the payload was omitted because it could not be searched.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redacted: bool,
}

/// Close of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloseLine {
    /// Time since the start, in microseconds.
    pub at_us: u64,
    /// Id of the client connection.
    pub connection: String,
    /// Cause, labelled as in metrics and logs.
    pub cause: String,
    /// Details of the cause, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Data lost since the previous line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LossLine {
    /// Messages dropped because a buffer was full.
    pub messages: u64,
    /// Connections that are not recorded.
    pub connections: u64,
}

/// Payload of a message, as sent over the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedPayload {
    /// Payload with valid text.
    Text(String),
    /// Payload with binary data.
    Binary(Bytes),
}

impl RecordedPayload {
    /// Returns the bytes of the payload.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into(),
            Self::Binary(bytes) => bytes,
        }
    }
}

impl MessageLine {
    /// Sets the payload, as text or base64.
    #[must_use]
    pub fn with_payload(self, payload: RecordedPayload) -> Self {
        match payload {
            RecordedPayload::Text(text) => Self { text: Some(text), ..self },
            RecordedPayload::Binary(bytes) => Self { base64: Some(STANDARD.encode(bytes)), ..self },
        }
    }

    /// Returns the payload, if present.
    ///
    /// # Errors
    /// If the base64 is invalid.
    pub fn payload(&self) -> Result<Option<RecordedPayload>, base64::DecodeError> {
        match (&self.text, &self.base64) {
            (Some(text), _) => Ok(Some(RecordedPayload::Text(text.clone()))),
            (None, Some(text)) => Ok(Some(RecordedPayload::Binary(STANDARD.decode(text)?.into()))),
            (None, None) => Ok(None),
        }
    }
}

impl RecordingHeader {
    /// Whether this node can read the format and version.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.format == FORMAT && self.version == VERSION
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::observer::json_line;

    fn payload() -> impl Strategy<Value = RecordedPayload> {
        prop_oneof![
            any::<String>().prop_map(RecordedPayload::Text),
            vec(any::<u8>(), 0..64).prop_map(|bytes| RecordedPayload::Binary(bytes.into())),
        ]
    }

    fn message() -> impl Strategy<Value = MessageLine> {
        (any::<(u64, String, u64, bool)>(), option::of(any::<String>()), option::of(payload())).prop_map(
            |((at_us, connection, bytes, redacted), target, payload)| {
                let kind = "invocation".to_owned();
                let plain = MessageLine { at_us, connection, kind, target, bytes, redacted, ..MessageLine::default() };
                match payload {
                    Some(payload) => plain.with_payload(payload),
                    None => plain,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_message_is_read_as_it_was_written_with_the_same_bytes(message in message()) {
            let line = RecordingLine::Down(message.clone());
            let text = json_line(&line);
            prop_assert_eq!(text.matches('\n').count(), 1, "one line");
            let RecordingLine::Down(read) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
            prop_assert_eq!(read.payload().unwrap(), message.payload().unwrap());
            prop_assert_eq!(read, message);
        }

        #[test]
        fn every_opening_is_read_as_it_was_written(
            claims in vec(any::<(String, String)>(), 0..4),
            user in option::of(any::<String>()),
            query in option::of(any::<String>()),
            was_open: bool,
        ) {
            let headers = claims.iter().map(|(name, value)| (name.clone(), vec![value.clone()])).collect();
            let open = OpenLine { user, claims, headers, query, was_open, ..OpenLine::default() };
            let line = RecordingLine::Open(Box::new(open));
            prop_assert_eq!(serde_json::from_str::<RecordingLine>(&json_line(&line)).unwrap(), line);
        }
    }

    #[test]
    fn the_lines_of_version_1_look_like_this() {
        let header = RecordingHeader {
            format: FORMAT.into(),
            version: VERSION,
            node: "n1".into(),
            hub: "chat".into(),
            started_ms: 5,
            payloads: true,
        };
        let say =
            MessageLine { at_us: 1, connection: "c".into(), kind: "ping".into(), bytes: 11, ..MessageLine::default() };
        let close = CloseLine { at_us: 2, connection: "c".into(), cause: "client_closed".into(), detail: None };
        for (line, expected) in [
            (
                RecordingLine::Header(header),
                r#"{"event":"header","format":"trunkline-recording","version":1,"node":"n1","hub":"chat","startedMs":5,"payloads":true}"#,
            ),
            (
                RecordingLine::Up(say.with_payload(RecordedPayload::Text("{}\u{1e}".into()))),
                r#"{"event":"up","atUs":1,"connection":"c","kind":"ping","bytes":11,"text":"{}\u001e"}"#,
            ),
            (RecordingLine::Close(close), r#"{"event":"close","atUs":2,"connection":"c","cause":"client_closed"}"#),
            (
                RecordingLine::Lost(LossLine { messages: 3, connections: 0 }),
                r#"{"event":"lost","messages":3,"connections":0}"#,
            ),
        ] {
            assert_eq!(json_line(&line).trim_end(), expected);
        }
    }
}
