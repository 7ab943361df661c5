//! Hub messages as values: the nine kinds of the hub protocol.
//!
//! Arguments, items and results stay encoded ([`Payload`]) until their type is known.

use bytestring::ByteString;

use super::{MessageKind, Payload};

/// Headers of a message in order. The hub protocol assigns them no meaning.
pub type Headers = Vec<(ByteString, ByteString)>;

/// Typical size of a message without its payloads.
const ENVELOPE_BYTES: usize = 64;

/// Message of the hub protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubMessage {
    /// Type 1: calls a method. Without an id, no result is expected.
    Invocation(Invocation),
    /// Type 2: an item of a stream.
    StreamItem(StreamItem),
    /// Type 3: the end of an invocation or stream.
    Completion(Completion),
    /// Type 4: calls a method that returns a stream. Always has an id.
    StreamInvocation(Invocation),
    /// Type 5: stops a stream.
    CancelInvocation(CancelInvocation),
    /// Type 6: keep-alive from the peer.
    Ping,
    /// Type 7: ends the connection.
    Close(Close),
    /// Type 8: acknowledges messages up to a sequence number (stateful reconnect).
    Ack {
        /// Sequence number of the last received message.
        sequence_id: u64,
    },
    /// Type 9: sequence number of the next message (stateful reconnect).
    Sequence {
        /// Sequence number of the following message.
        sequence_id: u64,
    },
}

/// Error decoding a frame, with the readable parts of its message.
///
/// If the message belongs to a call, upload or result with a known id, only that fails. A call without an id is dropped
/// if only its arguments are unreadable. Otherwise the connection has to be closed.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct HubMessageError {
    pub(super) problem: String,
    /// Whether the arguments of a MessagePack call are unreadable. The official server finds that when it binds them.
    pub(super) is_of_arguments: bool,
    /// Kind of the message.
    pub kind: Option<MessageKind>,
    /// Id of the invocation or stream.
    pub invocation_id: Option<ByteString>,
    /// Method name of a call.
    pub target: Option<ByteString>,
}

impl HubMessageError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), is_of_arguments: false, kind: None, invocation_id: None, target: None }
    }

    /// Invocation id of a call, which can be answered with this error.
    #[must_use]
    pub fn call_id(&self) -> Option<&ByteString> {
        self.invocation_id.as_ref().filter(|_| self.kind.is_some_and(MessageKind::is_call))
    }

    /// Whether the message is a call that expects no answer, with unreadable arguments. It is dropped.
    #[must_use]
    pub fn is_dropped_call(&self) -> bool {
        self.is_of_arguments && self.kind == Some(MessageKind::Invocation) && self.invocation_id.is_none()
    }

    /// Failed completion for the upload or result that the message belongs to.
    #[must_use]
    pub fn failed_end(&self) -> Option<Completion> {
        let is_end = matches!(self.kind, Some(MessageKind::Completion | MessageKind::StreamItem));
        let invocation_id = self.invocation_id.clone().filter(|_| is_end)?;
        let outcome = Outcome::Error(self.problem.as_str().into());
        Some(Completion { headers: Headers::new(), invocation_id, outcome })
    }
}

impl HubMessage {
    /// Estimated encoded size: contents plus a typical envelope.
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

    /// Kind of this message.
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

    /// Id of the invocation or stream, if any.
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

/// A call of either kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Headers, which are usually empty.
    pub headers: Headers,
    /// Invocation id, unique per direction and connection, and never empty.
    pub invocation_id: Option<ByteString>,
    /// Method name as given by the caller.
    pub target: ByteString,
    /// Encoded arguments of the call.
    pub arguments: Vec<Payload>,
    /// Ids of streams uploaded by the caller.
    pub stream_ids: Vec<ByteString>,
}

/// Item of a stream in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamItem {
    /// Headers, which are usually empty.
    pub headers: Headers,
    /// Id of the invocation or uploaded stream.
    pub invocation_id: ByteString,
    /// Encoded item of the stream.
    pub item: Payload,
}

/// Completion of an invocation or stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Headers, which are usually empty.
    pub headers: Headers,
    /// Id of the invocation or uploaded stream.
    pub invocation_id: ByteString,
    /// Result, error or neither.
    pub outcome: Outcome,
}

/// Outcome of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No result, or the end of a stream.
    Void,
    /// Encoded result. A method without a result returns null.
    Value(Payload),
    /// Text of the error.
    Error(ByteString),
}

/// Request to stop a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelInvocation {
    /// Headers, which are usually empty.
    pub headers: Headers,
    /// Invocation id of the stream.
    pub invocation_id: ByteString,
}

/// End of a connection, and whether the client may reconnect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Close {
    /// Human-readable error; `None` for a normal close.
    pub error: Option<ByteString>,
    /// Whether the client may reconnect automatically.
    pub allow_reconnect: bool,
}
