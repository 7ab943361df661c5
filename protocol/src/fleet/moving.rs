//! State of a client connection that moves to another node.
//!
//! The node where the client reconnected receives the connection's description ([`MovingConnection`]), so that sends
//! reach it there, then its state ([`MovedState`]).

use bytes::Bytes;
use bytestring::ByteString;

use crate::fields::{Map, from_bytes, record, to_bytes};
use crate::service::RecordedSet;

/// Description of a connection that another node is about to take over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MovingConnection {
    /// Instance id of its app server.
    pub app_server: ByteString,
    /// Body of the frame that opened it at the app server.
    pub opening: Bytes,
    /// User id, if authenticated.
    pub user: Option<ByteString>,
    /// Groups of the connection.
    pub groups: Vec<ByteString>,
    /// Opening time, in milliseconds since 1970.
    pub opened_ms: u64,
    /// Time at which its token expires and it closes, in seconds since 1970.
    pub expires_s: Option<u64>,
    /// Whether it must stay at its app server.
    pub is_bound: bool,
    /// Cause of the move, for metrics: `reconnect`, `drain` or `rebalance`.
    pub cause: ByteString,
}

/// Transport frame, and its number of messages counted by stateful reconnect.
pub type CountedFrame = (Bytes, u32);

/// State of a connection released by its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MovedState {
    /// Sequence number of the first message not acknowledged by the client.
    pub sequence: u64,
    /// Frames from that message on, written or waiting for a socket.
    pub sent: Vec<CountedFrame>,
    /// Frames after them, not numbered yet.
    pub held: Vec<CountedFrame>,
    /// Number of messages received from the client.
    pub received: u64,
    /// Invocation ids of its pending calls.
    pub calls: Vec<ByteString>,
    /// App servers that have answered, each with the first epoch that the new owner delivers.
    pub epochs: Vec<(ByteString, i64)>,
    /// Current groups of the connection.
    pub groups: Vec<ByteString>,
    /// Log-in refreshed since its [description](MovingConnection) was sent.
    pub refreshed: Option<RefreshedLogIn>,
    /// Records that its client follows.
    pub follows: Vec<MovedFollow>,
}

/// Follow of a record by a moving connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MovedFollow {
    /// Followed group or user.
    pub set: RecordedSet,
    /// Id of the client's stream.
    pub invocation_id: ByteString,
    /// Text of the [`RecordStart`](crate::service::RecordStart) of the next read.
    pub start: ByteString,
    /// Whether the client's token permits it, rather than a membership.
    pub is_by_token: bool,
}

/// Refreshed log-in of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefreshedLogIn {
    /// Claims for its app servers. Names may repeat.
    pub claims: Vec<(ByteString, ByteString)>,
    /// Time at which its token expires and it closes, in seconds since 1970.
    pub expires_s: Option<u64>,
}

/// Error decoding a connection's state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state of a connection can't be read: {0}")]
pub struct MovingError(String);

record!(MovingConnection [
    app_server "appServer", opening, user, groups, opened_ms "openedMs", expires_s "expiresS", is_bound "isBound", cause
]);
record!(MovedState [sequence, sent, held, received, calls, epochs, groups, refreshed, follows]);
record!(MovedFollow [set, invocation_id "invocationId", start, is_by_token "isByToken"]);
record!(RefreshedLogIn [claims as Map, expires_s "expiresS"]);

impl MovingConnection {
    /// Encodes the description as an array.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        to_bytes(self)
    }

    /// Decodes the output of [`encode`](Self::encode). Longer arrays are accepted. Fails if a field is missing or has
    /// the wrong type.
    pub fn decode(bytes: &Bytes) -> Result<Self, MovingError> {
        from_bytes(bytes, "connection").map_err(|error| MovingError(error.to_string()))
    }
}

impl MovedState {
    /// Encodes the state as an array.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        to_bytes(self)
    }

    /// Decodes the output of [`encode`](Self::encode). Longer arrays are accepted. Fails if a field is missing or has
    /// the wrong type.
    pub fn decode(bytes: &Bytes) -> Result<Self, MovingError> {
        from_bytes(bytes, "state").map_err(|error| MovingError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_the_way() {
        let moving = MovingConnection {
            app_server: "app-1".into(),
            opening: Bytes::from_static(b"opening"),
            user: Some("ann".into()),
            groups: vec!["red".into(), "blue".into()],
            opened_ms: 1_700_000_000_000,
            expires_s: Some(7),
            is_bound: true,
            cause: "drain".into(),
        };
        assert_eq!(MovingConnection::decode(&moving.encode()), Ok(moving));
        let plain = MovingConnection::default();
        assert_eq!(MovingConnection::decode(&plain.encode()), Ok(plain));
        let moved = MovedState {
            sequence: 5,
            sent: vec![(Bytes::from_static(b"a"), 1), (Bytes::from_static(b"b"), 2)],
            held: vec![(Bytes::from_static(b"c"), 1)],
            received: 9,
            calls: vec!["1".into()],
            epochs: vec![("app-1".into(), 3)],
            groups: vec!["red".into()],
            refreshed: None,
            follows: vec![MovedFollow { set: RecordedSet::group("red"), start: "0".into(), ..MovedFollow::default() }],
        };
        assert_eq!(MovedState::decode(&moved.encode()), Ok(moved.clone()));
        for expires_s in [None, Some(7)] {
            let claims = vec![("role".into(), "cook".into()), ("role".into(), "waiter".into())];
            let moved = MovedState { refreshed: Some(RefreshedLogIn { claims, expires_s }), ..moved.clone() };
            assert_eq!(MovedState::decode(&moved.encode()), Ok(moved));
        }
    }

    #[test]
    fn truncated_state_is_refused() {
        let whole = MovedState { epochs: vec![("app-1".into(), 3)], ..MovedState::default() }.encode();
        for length in 0..whole.len() {
            assert!(MovedState::decode(&whole.slice(..length)).is_err(), "{length}");
        }
        assert_eq!(
            MovedState::decode(&Bytes::from_static(b"\x91\x01")).unwrap_err().to_string(),
            "the state of a connection can't be read: sent: is missing"
        );
    }
}
