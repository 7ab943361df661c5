//! State of a client connection that moves to another node.
//!
//! The node where the client reconnected receives the connection's description ([`MovingConnection`]), so that sends
//! reach it there, then its state ([`MovedState`]).

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::message_pack::{ReadError, Reader, Writer};

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

impl From<ReadError> for MovingError {
    fn from(error: ReadError) -> Self {
        Self(error.to_string())
    }
}

impl MovingConnection {
    /// Encodes the description as an array.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(8, |writer| {
            writer.text(&self.app_server);
            writer.binary(&self.opening);
            match &self.user {
                Some(user) => writer.text(user),
                None => writer.nil(),
            }
            texts(writer, &self.groups);
            writer.integer(self.opened_ms.cast_signed());
            optional_time(writer, self.expires_s);
            writer.boolean(self.is_bound);
            writer.text(&self.cause);
        })
    }

    /// Decodes the output of [`encode`](Self::encode). Longer arrays are accepted. Fails if a field is missing or has
    /// the wrong type.
    pub fn decode(bytes: &Bytes) -> Result<Self, MovingError> {
        let mut reader = Reader::new(bytes);
        fields(&mut reader, 8)?;
        Ok(Self {
            app_server: reader.shared_text()?,
            opening: reader.binary()?,
            user: reader.optional_text()?,
            groups: read_list(&mut reader, |reader| Ok(reader.shared_text()?))?,
            opened_ms: reader.integer()?.cast_unsigned(),
            expires_s: read_optional_time(&mut reader)?,
            is_bound: reader.boolean()?,
            cause: reader.shared_text()?,
        })
    }
}

impl MovedState {
    /// Encodes the state as an array.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(if self.refreshed.is_some() { 9 } else { 7 }, |writer| {
            writer.integer(self.sequence.cast_signed());
            frames(writer, &self.sent);
            frames(writer, &self.held);
            writer.integer(self.received.cast_signed());
            texts(writer, &self.calls);
            writer.array_len(self.epochs.len());
            for (app_server, epoch) in &self.epochs {
                writer.array_len(2);
                writer.text(app_server);
                writer.integer(*epoch);
            }
            texts(writer, &self.groups);
            if let Some(refreshed) = &self.refreshed {
                let mut pairs: Vec<_> = Vec::with_capacity(2 * refreshed.claims.len());
                refreshed.claims.iter().for_each(|(name, value)| pairs.extend([name.clone(), value.clone()]));
                texts(writer, &pairs);
                optional_time(writer, refreshed.expires_s);
            }
        })
    }

    /// Decodes the output of [`encode`](Self::encode). Longer arrays are accepted. Fails if a field is missing or has
    /// the wrong type.
    pub fn decode(bytes: &Bytes) -> Result<Self, MovingError> {
        let mut reader = Reader::new(bytes);
        let items = fields(&mut reader, 7)?;
        Ok(Self {
            sequence: reader.integer()?.cast_unsigned(),
            sent: read_list(&mut reader, frame)?,
            held: read_list(&mut reader, frame)?,
            received: reader.integer()?.cast_unsigned(),
            calls: read_list(&mut reader, |reader| Ok(reader.shared_text()?))?,
            epochs: read_list(&mut reader, |reader| {
                fields(reader, 2)?;
                Ok((reader.shared_text()?, reader.integer()?))
            })?,
            groups: read_list(&mut reader, |reader| Ok(reader.shared_text()?))?,
            refreshed: if items >= 9 { Some(refreshed_log_in(&mut reader)?) } else { None },
        })
    }
}

fn refreshed_log_in(reader: &mut Reader<'_>) -> Result<RefreshedLogIn, MovingError> {
    let texts = read_list(reader, |reader| Ok(reader.shared_text()?))?;
    let claims = texts.as_chunks::<2>().0.iter().map(|[name, value]| (name.clone(), value.clone())).collect();
    Ok(RefreshedLogIn { claims, expires_s: read_optional_time(reader)? })
}

fn optional_time(writer: &mut Writer, at_s: Option<u64>) {
    match at_s {
        Some(at_s) => writer.integer(at_s.cast_signed()),
        None => writer.nil(),
    }
}

fn read_optional_time(reader: &mut Reader<'_>) -> Result<Option<u64>, MovingError> {
    Ok(if reader.take_nil() { None } else { Some(reader.integer()?.cast_unsigned()) })
}

fn encode(items: usize, write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut out = BytesMut::new();
    let mut writer = Writer(&mut out);
    writer.array_len(items);
    write(&mut writer);
    out.freeze()
}

fn texts(writer: &mut Writer, list: &[ByteString]) {
    writer.array_len(list.len());
    list.iter().for_each(|text| writer.text(text));
}

fn frames(writer: &mut Writer, list: &[CountedFrame]) {
    writer.array_len(list.len());
    for (frame, messages) in list {
        writer.array_len(2);
        writer.binary(frame);
        writer.integer(i64::from(*messages));
    }
}

fn fields(reader: &mut Reader<'_>, expected: usize) -> Result<usize, MovingError> {
    let items = reader.array_len()?;
    if items < expected { Err(MovingError(format!("{items} of {expected} fields"))) } else { Ok(items) }
}

fn frame(reader: &mut Reader<'_>) -> Result<CountedFrame, MovingError> {
    fields(reader, 2)?;
    let frame = reader.binary()?;
    let messages = reader.integer()?;
    let messages = u32::try_from(messages).map_err(|_| MovingError(format!("a frame of {messages} messages")))?;
    Ok((frame, messages))
}

fn read_list<'a, T>(
    reader: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, MovingError>,
) -> Result<Vec<T>, MovingError> {
    let items = reader.array_len()?;
    (0..items).map(|_| item(reader)).collect()
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
            "the state of a connection can't be read: 1 of 7 fields"
        );
    }
}
