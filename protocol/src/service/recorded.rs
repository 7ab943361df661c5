//! Records of the messages to a group or a user: names, positions, and requests between nodes.
//!
//! ```text
//!  node of the sender ── RecordRequest ──► recorder of the set ── Recorded ──► each node with members or followers
//!                     ◄── RecordReply ───
//! ```

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

use crate::fields::{from_bytes, numbered, record, to_bytes};

/// Group or user of a hub, as the subject of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RecordedSet {
    /// Whether the name is a user id rather than a group name.
    pub is_user: bool,
    /// Group name or user id.
    pub name: ByteString,
}

impl RecordedSet {
    /// The set of a group.
    #[must_use]
    pub fn group(name: impl Into<ByteString>) -> Self {
        Self { is_user: false, name: name.into() }
    }

    /// The set of a user.
    #[must_use]
    pub fn user(id: impl Into<ByteString>) -> Self {
        Self { is_user: true, name: id.into() }
    }
}

/// Request about a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecordAct {
    /// 1: append a send.
    Append,
    /// 2: read a part.
    #[default]
    Read,
    /// 3: end the record, which is kept.
    Finish,
    /// 4: remove the record.
    Delete,
    /// 5: take a part of the record over from the sender of the request.
    Give,
    /// 6: give the record to the sender of the request.
    Yield,
}

/// Reason of a record's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordEnd {
    /// 1: a back end has finished the record, which is kept.
    Finished,
    /// 2: a back end has deleted the record.
    Deleted,
}

/// Kind of the refusal of a [`RecordRequest`](super::RecordRequest).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordRefusal {
    /// 1: the record is finished.
    Finished,
    /// 2: there is no such record.
    Missing,
    /// 3: another message was sent with this id.
    OtherMessage,
    /// 4: the message is larger than all records may be.
    TooLarge,
    /// 5: the record is moving to another node. Nothing was done.
    Moving,
    /// 6: the recorder does not answer, or can't do it.
    Unreachable,
}

/// Place of a message in a record. `epoch` changes when a record begins again; numbers of an epoch have no gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Begin of the record; a later one is larger.
    pub epoch: u64,
    /// Number of the message, from 1; 0 is the position before the first one.
    pub number: u64,
}

impl Position {
    /// Position in the same epoch, one message later.
    #[must_use]
    pub fn next(self) -> Self {
        Self { number: self.number.saturating_add(1), ..self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.number)
    }
}

/// Error of a malformed position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the position of a received message, or \"0\" for all that is kept")]
pub struct PositionError;

impl std::str::FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, number) = text.split_once('-').filter(|(epoch, _)| epoch.len() == 16).ok_or(PositionError)?;
        let is_plain = epoch.bytes().chain(number.bytes()).all(|byte| byte.is_ascii_hexdigit());
        let position = Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| PositionError)?,
            number: number.parse().map_err(|_| PositionError)?,
        };
        Some(position).filter(|position| is_plain && position.to_string() == text).ok_or(PositionError)
    }
}

/// Start of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordStart {
    /// The next message to come.
    Newest,
    /// This number of kept messages.
    Last(u32),
    /// All that is kept.
    Oldest,
    /// Messages behind a position: epoch and number.
    After(u64, u64),
}

impl RecordStart {
    /// Start of a read that follows a message.
    #[must_use]
    pub fn after(position: Position) -> Self {
        Self::After(position.epoch, position.number)
    }

    /// Whether a new message is the next one behind this start: `Some(false)` after a gap, or in another epoch. `None`
    /// for an earlier message.
    #[must_use]
    pub fn is_next(self, position: Position) -> Option<bool> {
        match self {
            Self::After(epoch, number) if epoch == position.epoch && position.number <= number => None,
            // The first message of a record, for readers from before its begin.
            Self::After(0, _) => Some(position.number == 1),
            Self::After(epoch, number) => Some(epoch == position.epoch && position.number == number + 1),
            Self::Newest | Self::Last(_) | Self::Oldest => Some(false),
        }
    }

    /// Reads the options `after` and `last` of a client or a back end. Fails if both are given or one is malformed; the
    /// text follows the name of the option.
    pub fn from_options(after: Option<&str>, last: Option<u64>) -> Result<Self, (&'static str, String)> {
        match (after, last) {
            (Some(_), Some(_)) => Err(("after", "must not be given together with last".into())),
            (None, None) => Ok(Self::Newest),
            (Some("0"), None) => Ok(Self::Oldest),
            (Some(after), None) => match after.parse() {
                Ok(position) => Ok(Self::after(position)),
                Err(PositionError) => Err(("after", PositionError.to_string())),
            },
            (None, Some(last)) => match u32::try_from(last) {
                Ok(last @ 1..) => Ok(Self::Last(last)),
                _ => Err(("last", "must be a whole number from 1".into())),
            },
        }
    }
}

impl fmt::Display for RecordStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Newest => Ok(()),
            Self::Oldest => f.write_str("0"),
            Self::Last(count) => write!(f, "last {count}"),
            Self::After(epoch, number) => Position { epoch, number }.fmt(f),
        }
    }
}

impl std::str::FromStr for RecordStart {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let after = Some(text).filter(|text| !text.is_empty());
        let read = match text.strip_prefix("last ") {
            Some(last) => Self::from_options(None, Some(last.parse().map_err(|_| PositionError)?)),
            None => Self::from_options(after, None),
        };
        read.map_err(|_| PositionError)
    }
}

/// Message of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedMessage {
    /// Number in the epoch of its page.
    pub number: u64,
    /// Time of its arrival at the recorder, in milliseconds since 1970.
    pub at_ms: u64,
    /// The send, encoded by [`ServiceMessage::to_body`](super::ServiceMessage::to_body).
    pub body: Bytes,
}

/// Part of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordPage {
    /// Reason why messages before these may be missing.
    pub reset: Option<ByteString>,
    /// Epoch of the record.
    pub epoch: u64,
    /// Number before the first message of the page.
    pub after: u64,
    /// Number of the newest message of the record.
    pub newest: u64,
    /// Number of the oldest kept message; `None` if nothing is kept.
    pub oldest: Option<u64>,
    /// Whether the record was finished.
    pub is_finished: bool,
    /// Messages of the page, without gaps in their numbers.
    pub messages: Vec<RecordedMessage>,
    /// Kept ids of sends, in the last page of a record that is handed over.
    pub ids: Vec<RecordedId>,
}

/// Id of a recorded send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedId {
    /// The id, chosen by the sender.
    pub id: ByteString,
    /// Hash of the message.
    pub hash: u64,
    /// Number of the message.
    pub number: u64,
    /// Time of its arrival, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Answer to a [`RecordRequest`](super::RecordRequest).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordReply {
    /// Kind of the refusal; `None` if the request was carried out.
    pub refused: Option<RecordRefusal>,
    /// Reason of a refusal, for people.
    pub problem: ByteString,
    /// Position of the appended message.
    pub position: ByteString,
    /// Number of nodes that delivered the message.
    pub nodes: u64,
    /// Number of its receivers.
    pub clients: u64,
    /// Nodes without an answer.
    pub missing: Vec<ByteString>,
    /// Read part of the record.
    pub page: Option<RecordPage>,
}

/// Error decoding a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the reply of a recorder can't be read: {0}")]
pub struct RecordReplyError(String);

numbered!(RecordAct as integer: 1 Append, 2 Read, 3 Finish, 4 Delete, 5 Give, 6 Yield);
numbered!(RecordEnd as integer: 1 Finished, 2 Deleted);
numbered!(RecordRefusal as integer: 1 Finished, 2 Missing, 3 OtherMessage, 4 TooLarge, 5 Moving, 6 Unreachable);
record!(RecordedSet [is_user "isUser", name]);
record!(RecordedMessage [number, at_ms "atMs", body]);
record!(RecordedId [id, hash, number, at_ms "atMs"]);
record!(RecordPage [reset, epoch, after, newest, oldest, is_finished "isFinished", messages, ids]);
record!(RecordReply [refused, problem, position, nodes, clients, missing, page]);

impl RecordReply {
    /// Encodes the payload of an ack.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        to_bytes(self)
    }

    /// Decodes the output of [`encode`](Self::encode). Longer arrays are accepted. Fails if a field is missing or has
    /// the wrong type.
    pub fn decode(bytes: &Bytes) -> Result<Self, RecordReplyError> {
        from_bytes(bytes, "reply").map_err(|error| RecordReplyError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_short_and_read_back_and_nothing_else_is() {
        let position = Position { epoch: u64::MAX, number: u64::MAX };
        let text = position.to_string();
        assert!(text.len() <= 40 && text.parse() == Ok(position), "{text}");
        for text in ["", "0", "1-1", "00000000000000001-1", "000000000000000g-1", "0000000000000001--1"] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
        for text in ["0000000000000001-01", "0000000000000001-+1", "000000000000000A-1", "0000000000000001-"] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }

    #[test]
    fn a_start_is_read_from_options_and_from_its_text() {
        for start in [RecordStart::Newest, RecordStart::Oldest, RecordStart::Last(3), RecordStart::After(7, 9)] {
            assert_eq!(start.to_string().parse(), Ok(start));
        }
        let next = |start: RecordStart, epoch, number| start.is_next(Position { epoch, number });
        let after = RecordStart::After(7, 2);
        assert_eq!([next(after, 7, 2), next(after, 7, 3), next(after, 7, 4)], [None, Some(true), Some(false)]);
        assert_eq!([next(after, 8, 1), next(RecordStart::After(0, 0), 8, 1)], [Some(false), Some(true)]);
        let problem = |after, last| RecordStart::from_options(after, last).unwrap_err().0;
        let problems = [problem(Some("0"), Some(1)), problem(Some("x"), None), problem(None, Some(0))];
        assert_eq!(problems, ["after", "after", "last"]);
    }

    #[test]
    fn a_reply_is_read_back_and_rubbish_is_refused() {
        let messages = vec![RecordedMessage { number: 3, at_ms: 4, body: Bytes::from_static(b"x") }];
        let page =
            RecordPage { reset: Some("lost".into()), epoch: 1, after: 2, newest: 3, messages, ..RecordPage::default() };
        let reply = RecordReply {
            page: Some(page),
            missing: vec!["n".into()],
            refused: Some(RecordRefusal::Moving),
            ..RecordReply::default()
        };
        assert_eq!(RecordReply::decode(&reply.encode()), Ok(reply));
        assert!(RecordReply::decode(&Bytes::from_static(b"\x90")).is_err());
    }
}
