//! Hub messages as values: the nine kinds that the hub protocol knows.
//!
//! Arguments, items and results stay encoded ([`Payload`]) until somebody knows their type.

use bytestring::ByteString;

use super::{MessageKind, Payload};

/// Headers of a message, in their order; the hub protocol gives them no meaning.
pub type Headers = Vec<(ByteString, ByteString)>;

/// Room for all of a typical message but its payloads.
const ENVELOPE_BYTES: usize = 64;

/// Message of the hub protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubMessage {
    /// Type 1: call a method; without an id, nobody waits for the outcome.
    Invocation(Invocation),
    /// Type 2: one item of a stream.
    StreamItem(StreamItem),
    /// Type 3: the end of an invocation or of a stream.
    Completion(Completion),
    /// Type 4: call a method that returns a stream; always with an id.
    StreamInvocation(Invocation),
    /// Type 5: stop a stream.
    CancelInvocation(CancelInvocation),
    /// Type 6: the other end lives.
    Ping,
    /// Type 7: the connection ends.
    Close(Close),
    /// Type 8: the sequence number up to which messages have arrived (stateful reconnect).
    Ack {
        /// The last sequence number that arrived.
        sequence_id: u64,
    },
    /// Type 9: the sequence number of the next message (stateful reconnect).
    Sequence {
        /// The number of the message that follows.
        sequence_id: u64,
    },
}

/// Error of a frame that can't be decoded, with what is known of its message.
///
/// A message about one call, upload or result fails alone if its id is known. After any other one the connection can't
/// go on.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct HubMessageError {
    pub(super) problem: String,
    /// Kind of the message.
    pub kind: Option<MessageKind>,
    /// Id of the invocation or stream that the message is about.
    pub invocation_id: Option<ByteString>,
    /// Method, if the message is a call.
    pub target: Option<ByteString>,
}

impl HubMessageError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), kind: None, invocation_id: None, target: None }
    }

    /// Invocation id of a call, which can be answered with this error.
    #[must_use]
    pub fn call_id(&self) -> Option<&ByteString> {
        self.invocation_id.as_ref().filter(|_| self.kind.is_some_and(MessageKind::is_call))
    }

    /// Failed end of the upload or result that the message belongs to.
    #[must_use]
    pub fn failed_end(&self) -> Option<Completion> {
        let is_end = matches!(self.kind, Some(MessageKind::Completion | MessageKind::StreamItem));
        let invocation_id = self.invocation_id.clone().filter(|_| is_end)?;
        let outcome = Outcome::Error(self.problem.as_str().into());
        Some(Completion { headers: Headers::new(), invocation_id, outcome })
    }
}

impl HubMessage {
    /// Bytes to make room for before it is encoded: what people sent, and a typical envelope.
    pub(super) fn expected_bytes(&self) -> usize {
        ENVELOPE_BYTES
            + match self {
                Self::Invocation(call) | Self::StreamInvocation(call) => {
                    call.target.len() + call.arguments.iter().map(|argument| argument.0.len() + 1).sum::<usize>()
                }
                Self::StreamItem(item) => item.item.0.len(),
                Self::Completion(Completion { outcome: Outcome::Value(result), .. }) => result.0.len(),
                Self::Completion(Completion { outcome: Outcome::Error(error), .. }) => error.len(),
                _ => 0,
            }
    }

    /// The kind of this message.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Invocation(_) => MessageKind::Invocation,
            Self::StreamItem(_) => MessageKind::StreamItem,
            Self::Completion(_) => MessageKind::Completion,
            Self::StreamInvocation(_) => MessageKind::StreamInvocation,
            Self::CancelInvocation(_) => MessageKind::CancelInvocation,
            Self::Ping => MessageKind::Ping,
            Self::Close(_) => MessageKind::Close,
            Self::Ack { .. } => MessageKind::Ack,
            Self::Sequence { .. } => MessageKind::Sequence,
        }
    }

    /// The id of the invocation or stream that this message is about.
    #[must_use]
    pub fn invocation_id(&self) -> Option<&ByteString> {
        match self {
            Self::Invocation(call) | Self::StreamInvocation(call) => call.invocation_id.as_ref(),
            Self::StreamItem(item) => Some(&item.invocation_id),
            Self::Completion(completion) => Some(&completion.invocation_id),
            Self::CancelInvocation(cancel) => Some(&cancel.invocation_id),
            Self::Ping | Self::Close(_) | Self::Ack { .. } | Self::Sequence { .. } => None,
        }
    }
}

/// A call, of either kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Headers, most often none.
    pub headers: Headers,
    /// Invocation id, unique per direction and connection; never an empty text.
    pub invocation_id: Option<ByteString>,
    /// The method, as the caller wrote it.
    pub target: ByteString,
    /// The arguments, still encoded.
    pub arguments: Vec<Payload>,
    /// Ids of the streams that the caller uploads.
    pub stream_ids: Vec<ByteString>,
}

/// An item of a stream in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamItem {
    /// Headers, most often none.
    pub headers: Headers,
    /// The invocation's id, or that of an uploaded stream.
    pub invocation_id: ByteString,
    /// The item, still encoded.
    pub item: Payload,
}

/// Completion of an invocation or of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Headers, most often none.
    pub headers: Headers,
    /// The invocation's id, or that of an uploaded stream.
    pub invocation_id: ByteString,
    /// Result, error or neither.
    pub outcome: Outcome,
}

/// Outcome of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No result; also the end of a stream.
    Void,
    /// Its result, still encoded; a method without a result gives null.
    Value(Payload),
    /// The text of its error.
    Error(ByteString),
}

/// Request to stop a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelInvocation {
    /// Headers, most often none.
    pub headers: Headers,
    /// The stream's invocation id.
    pub invocation_id: ByteString,
}

/// End of a connection, and whether the client may reconnect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Close {
    /// Error text for people; `None` for a normal close.
    pub error: Option<ByteString>,
    /// Whether the client may connect anew by itself.
    pub allow_reconnect: bool,
}
