//! Encoding of node messages: length-prefixed arrays, like the frames of a link.
//!
//! ```text
//!  length │ [ number, field, field, … ]      numbers start at 100: the service protocol uses lower ones
//! ```
//!
//! Later versions may append fields and add numbers.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::interest::{INTEREST_BUCKETS, InterestMap, InterestUpdate};
use super::presence::{PresenceUpdate, PresentAppServer};
use crate::limits::{PRESENCE_SERVERS_MAX, PRESENCE_TEXT_MAX_BYTES};
use crate::message_pack::{ReadError, Reader, Writer};
use crate::service::write_frame;

/// Maximum encoded size apart from texts and binaries.
const ENVELOPE_BYTES: usize = 40;

/// Maximum encoded size of an app server apart from its texts.
const SERVER_BYTES: usize = 20;

const STATE: i64 = 100;
const INTEREST_WHOLE: i64 = 101;
const INTEREST_ADDED: i64 = 102;
const INTEREST_COMPLETE: i64 = 103;
const RELAY: i64 = 104;
const ASK: i64 = 105;
const ANSWER: i64 = 106;
const REQUEST: i64 = 107;
const RESPONSE: i64 = 108;
const APP_SERVERS: i64 = 109;
const APP_SERVERS_COMPLETE: i64 = 110;
const MOVE: i64 = 111;
const MOVED: i64 = 112;
const MEMBERSHIP: i64 = 113;
const REVOCATION: i64 = 114;

/// Message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeMessage {
    /// Service message to apply at the other node, without a reply.
    Relay {
        /// Hub of the message.
        hub: ByteString,
        /// Frame body without the length prefix.
        frame: Bytes,
    },
    /// Service message to apply at the other node, which replies.
    Ask {
        /// Request number for the answer.
        question: u64,
        /// Hub of the message.
        hub: ByteString,
        /// Frame body without the length prefix.
        frame: Bytes,
    },
    /// Answer to an [`Ask`](Self::Ask).
    Answer {
        /// Number of the request.
        question: u64,
        /// Frame body of a service message; `None` if the answer is empty.
        frame: Option<Bytes>,
    },
    /// Admin API request to the other node.
    Request {
        /// Request number for the response.
        question: u64,
        /// HTTP method of the request.
        method: RequestMethod,
        /// Path and query of the request.
        target: ByteString,
        /// Body of the request.
        body: Bytes,
    },
    /// Response to a [`Request`](Self::Request).
    Response {
        /// Number of the request.
        question: u64,
        /// HTTP status code of the response.
        status: u16,
        /// Body of the response.
        body: Bytes,
    },
    /// State of the sending node.
    State(NodeState),
    /// Update of the sender's interest.
    Interest(InterestUpdate),
    /// Update of the app servers that dialled in at the sender.
    Presence(PresenceUpdate),
    /// Request to move a connection to the node where its client reconnected.
    Move {
        /// Request number for the answer.
        question: u64,
        /// Step of the move.
        step: MoveStep,
        /// Hub of the connection.
        hub: ByteString,
        /// Id of the connection.
        connection_id: ByteString,
    },
    /// Answer to a [`Move`](Self::Move).
    Moved {
        /// Number of the request.
        question: u64,
        /// Result of the step; `None` if the connection is not there or can't move.
        state: Option<Bytes>,
    },
    /// Membership of a user, sent to a newly linked node.
    Membership(SharedMembership),
    /// Revocation of access tokens: new, or missed by a newly linked node.
    Revocation(SharedRevocation),
}

/// Revocation of access tokens by their claims. For equal tokens the later times win, so nodes may receive revocations
/// in any order, repeatedly and from any node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRevocation {
    /// User id of the tokens; `None` for all users.
    pub user: Option<ByteString>,
    /// Audience of the tokens; `None` for any.
    pub audience: Option<ByteString>,
    /// App with the signing key of the tokens; `None` for any key.
    pub app: Option<ByteString>,
    /// Tokens issued up to this second since 1970 are revoked.
    pub issued_before_s: u64,
    /// Second since 1970 after which the revocation is deleted.
    pub kept_until_s: u64,
    /// Millisecond since 1970 at which the user's connections were last closed, for nodes that were offline then; 0 if
    /// never, or if the node is notified otherwise.
    #[serde(skip)]
    pub closed_ms: u64,
}

/// Membership of a user in a group, applied to future connections. The most recently changed one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedMembership {
    /// Hub of the group.
    pub hub: ByteString,
    /// Id of the user.
    pub user: ByteString,
    /// Name of the group.
    pub group: ByteString,
    /// Remaining validity in milliseconds; zero if the user has left the group.
    pub left_ms: u64,
    /// Time since it began, was renewed or ended, in milliseconds.
    pub age_ms: u64,
}

/// Step of moving a connection to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MoveStep {
    /// Returns the connection's description, a [`MovingConnection`](super::MovingConnection).
    Inspect,
    /// Releases the connection and returns its [`MovedState`](super::MovedState).
    Take,
    /// Confirms the arrival. There is no answer.
    Arrived,
}

/// HTTP method of a request between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestMethod {
    /// GET, without side effects.
    Get,
    /// POST, with side effects.
    Post,
}

/// State reported by a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeState {
    /// Phase of the node.
    pub phase: NodePhase,
    /// Number of visible members, including itself.
    pub members: u32,
    /// Hash of these members by [`view_of`](super::view_of).
    pub view: u64,
}

/// Phase of a node's life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodePhase {
    /// Not ready for clients yet.
    Starting,
    /// Serving clients. Phases of later versions are read as this one.
    Ready,
    /// Refusing new clients and closing existing ones.
    Draining,
}

/// Error decoding a node message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a malformed node message ({kind}): {problem}")]
pub struct NodeMessageError {
    /// Name of the message, as far as known.
    pub kind: &'static str,
    /// Problem with its fields.
    pub problem: String,
}

impl NodeMessage {
    /// Appends the message with its length prefix. Panics if the message exceeds 2 GiB, the limit of the length prefix.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Relay { hub, frame } => encode_relay(hub, frame, out),
            Self::Ask { question, hub, frame } => encode_ask(*question, hub, frame, out),
            Self::Answer { question, frame } => {
                write(ANSWER, 3, frame.as_ref().map_or(0, Bytes::len), out, |writer| {
                    unsigned(writer, *question);
                    match frame {
                        Some(frame) => writer.binary(frame),
                        None => writer.nil(),
                    }
                });
            }
            Self::Request { question, method, target, body } => {
                write(REQUEST, 5, target.len() + body.len(), out, |writer| {
                    unsigned(writer, *question);
                    writer.integer(method.number());
                    writer.text(target);
                    writer.binary(body);
                });
            }
            Self::Response { question, status, body } => write(RESPONSE, 4, body.len(), out, |writer| {
                unsigned(writer, *question);
                writer.integer(i64::from(*status));
                writer.binary(body);
            }),
            Self::State(state) => write(STATE, 4, 0, out, |writer| {
                writer.integer(state.phase.number());
                writer.integer(i64::from(state.members));
                unsigned(writer, state.view);
            }),
            Self::Interest(update) => encode_interest(update, out),
            Self::Presence(update) => encode_presence(update, out),
            Self::Move { question, step, hub, connection_id } => {
                write(MOVE, 5, hub.len() + connection_id.len(), out, |writer| {
                    unsigned(writer, *question);
                    writer.integer(step.number());
                    writer.text(hub);
                    writer.text(connection_id);
                });
            }
            Self::Moved { question, state } => write(MOVED, 3, state.as_ref().map_or(0, Bytes::len), out, |writer| {
                unsigned(writer, *question);
                match state {
                    Some(state) => writer.binary(state),
                    None => writer.nil(),
                }
            }),
            Self::Membership(SharedMembership { hub, user, group, left_ms, age_ms }) => {
                write(MEMBERSHIP, 6, hub.len() + user.len() + group.len(), out, |writer| {
                    [hub, user, group].into_iter().for_each(|name| writer.text(name));
                    unsigned(writer, *left_ms);
                    unsigned(writer, *age_ms);
                });
            }
            Self::Revocation(revocation) => encode_revocation(revocation, out),
        }
    }

    /// Returns the message with its length prefix.
    #[must_use]
    pub fn to_frame(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    /// Decodes a frame body without its length prefix, sharing its memory. Returns `None` for unknown messages, which
    /// are skipped. Longer arrays are accepted. Fails if a field is missing, out of range, or has the wrong type.
    pub fn decode(body: &Bytes) -> Result<Option<Self>, NodeMessageError> {
        let mut reader = Reader::new(body);
        let (items, number) = head(&mut reader).map_err(|error| FieldProblem::Read(error).of("of no type"))?;
        let mut fields = MessageFields { reader, left: items.saturating_sub(1) };
        message(number, &mut fields).map_err(|problem| problem.of(name_of(number)))
    }

    /// Name of this kind of message in logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of(match self {
            Self::Relay { .. } => RELAY,
            Self::Ask { .. } => ASK,
            Self::Answer { .. } => ANSWER,
            Self::Request { .. } => REQUEST,
            Self::Response { .. } => RESPONSE,
            Self::State(_) => STATE,
            Self::Interest(InterestUpdate::Whole { .. }) => INTEREST_WHOLE,
            Self::Interest(InterestUpdate::Added { .. }) => INTEREST_ADDED,
            Self::Interest(InterestUpdate::Complete) => INTEREST_COMPLETE,
            Self::Presence(PresenceUpdate::Whole { .. }) => APP_SERVERS,
            Self::Presence(PresenceUpdate::Complete) => APP_SERVERS_COMPLETE,
            Self::Move { .. } => MOVE,
            Self::Moved { .. } => MOVED,
            Self::Membership(_) => MEMBERSHIP,
            Self::Revocation(_) => REVOCATION,
        })
    }
}

/// Appends an encoded [`NodeMessage::Relay`] directly from a frame body. Panics as [`NodeMessage::encode`] does.
pub fn encode_relay(hub: &str, frame: &[u8], out: &mut BytesMut) {
    write(RELAY, 3, hub.len() + frame.len(), out, |writer| {
        writer.text(hub);
        writer.binary(frame);
    });
}

/// Appends an encoded [`NodeMessage::Ask`] directly from a frame body. Panics as [`NodeMessage::encode`] does.
pub fn encode_ask(question: u64, hub: &str, frame: &[u8], out: &mut BytesMut) {
    write(ASK, 4, hub.len() + frame.len(), out, |writer| {
        unsigned(writer, question);
        writer.text(hub);
        writer.binary(frame);
    });
}

fn encode_revocation(revocation: &SharedRevocation, out: &mut BytesMut) {
    let SharedRevocation { user, audience, app, issued_before_s, kept_until_s, closed_ms } = revocation;
    let names = [user, audience, app];
    let bytes = names.iter().map(|name| name.as_ref().map_or(0, |name| name.len())).sum();
    write(REVOCATION, 7, bytes, out, |writer| {
        names.into_iter().for_each(|name| match name {
            Some(name) => writer.text(name),
            None => writer.nil(),
        });
        unsigned(writer, *issued_before_s);
        unsigned(writer, *kept_until_s);
        unsigned(writer, *closed_ms);
    });
}

fn encode_interest(update: &InterestUpdate, out: &mut BytesMut) {
    match update {
        InterestUpdate::Whole { hub, map } => {
            let map = map.to_bytes();
            write(INTEREST_WHOLE, 3, hub.len() + map.len(), out, |writer| {
                writer.text(hub);
                writer.binary(&map);
            });
        }
        InterestUpdate::Added { hub, buckets } => {
            let buckets: Vec<u8> = buckets.iter().flat_map(|bucket| bucket.to_be_bytes()).collect();
            write(INTEREST_ADDED, 3, hub.len() + buckets.len(), out, |writer| {
                writer.text(hub);
                writer.binary(&buckets);
            });
        }
        InterestUpdate::Complete => write(INTEREST_COMPLETE, 1, 0, out, |_| {}),
    }
}

fn encode_presence(update: &PresenceUpdate, out: &mut BytesMut) {
    let PresenceUpdate::Whole { hub, servers } = update else { return write(APP_SERVERS_COMPLETE, 1, 0, out, |_| {}) };
    let size = |server: &PresentAppServer| SERVER_BYTES + server.instance.len() + server.endpoint.len();
    let bytes = hub.len() + servers.iter().map(size).sum::<usize>();
    write(APP_SERVERS, 3, bytes, out, |writer| {
        writer.text(hub);
        writer.array_len(servers.len());
        for PresentAppServer { instance, endpoint, links, carried } in servers {
            writer.array_len(4);
            writer.text(instance);
            writer.text(endpoint);
            writer.integer(i64::from(*links));
            writer.integer(i64::from(*carried));
        }
    });
}

fn write(number: i64, items: usize, variable_bytes: usize, out: &mut BytesMut, fields: impl FnOnce(&mut Writer)) {
    write_frame(ENVELOPE_BYTES + variable_bytes, out, |writer| {
        writer.array_len(items);
        writer.integer(number);
        fields(writer);
    });
}

/// Writes a `u64` as the `i64` with equal bits, because readers only support signed numbers.
fn unsigned(writer: &mut Writer, number: u64) {
    writer.integer(number.cast_signed());
}

fn head(reader: &mut Reader) -> Result<(usize, i64), ReadError> {
    Ok((reader.array_len()?, reader.integer()?))
}

fn message(number: i64, fields: &mut MessageFields) -> Result<Option<NodeMessage>, FieldProblem> {
    use NodeMessage as M;
    Ok(Some(match number {
        STATE => M::State(NodeState {
            phase: NodePhase::from_number(fields.integer("phase")?),
            members: fields.number("members")?,
            view: fields.unsigned("view")?,
        }),
        INTEREST_WHOLE => {
            let hub = fields.text("hub")?;
            let map = InterestMap::from_bytes(&fields.binary("map")?)
                .map_err(|error| FieldProblem::Value("map", error.to_string()))?;
            M::Interest(InterestUpdate::Whole { hub, map })
        }
        INTEREST_ADDED => {
            let hub = fields.text("hub")?;
            M::Interest(InterestUpdate::Added { hub, buckets: buckets(&fields.binary("buckets")?)? })
        }
        INTEREST_COMPLETE => M::Interest(InterestUpdate::Complete),
        APP_SERVERS => M::Presence(PresenceUpdate::Whole { hub: fields.text("hub")?, servers: fields.app_servers()? }),
        APP_SERVERS_COMPLETE => M::Presence(PresenceUpdate::Complete),
        RELAY => M::Relay { hub: fields.text("hub")?, frame: fields.binary("frame")? },
        ASK => {
            M::Ask { question: fields.unsigned("question")?, hub: fields.text("hub")?, frame: fields.binary("frame")? }
        }
        ANSWER => M::Answer { question: fields.unsigned("question")?, frame: fields.optional_binary("frame")? },
        REQUEST => {
            let question = fields.unsigned("question")?;
            let Some(method) = RequestMethod::from_number(fields.integer("method")?) else { return Ok(None) };
            M::Request { question, method, target: fields.text("target")?, body: fields.binary("body")? }
        }
        RESPONSE => M::Response {
            question: fields.unsigned("question")?,
            status: fields.number("status")?,
            body: fields.binary("body")?,
        },
        MOVE => {
            let question = fields.unsigned("question")?;
            let Some(step) = MoveStep::from_number(fields.integer("step")?) else { return Ok(None) };
            M::Move { question, step, hub: fields.text("hub")?, connection_id: fields.text("connectionId")? }
        }
        MOVED => M::Moved { question: fields.unsigned("question")?, state: fields.optional_binary("state")? },
        MEMBERSHIP => M::Membership(SharedMembership {
            hub: fields.text("hub")?,
            user: fields.text("user")?,
            group: fields.text("group")?,
            left_ms: fields.unsigned("leftMs")?,
            age_ms: fields.unsigned("ageMs")?,
        }),
        REVOCATION => M::Revocation(SharedRevocation {
            user: fields.optional_text("user")?,
            audience: fields.optional_text("audience")?,
            app: fields.optional_text("app")?,
            issued_before_s: fields.unsigned("issuedBeforeS")?,
            kept_until_s: fields.unsigned("keptUntilS")?,
            closed_ms: fields.unsigned("closedMs")?,
        }),
        _ => return Ok(None),
    }))
}

fn buckets(bytes: &[u8]) -> Result<Vec<u16>, FieldProblem> {
    match bytes.as_chunks() {
        (pairs, []) if pairs.len() <= usize::try_from(INTEREST_BUCKETS).unwrap_or(usize::MAX) => {
            Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
        }
        _ => Err(FieldProblem::Value("buckets", format!("{} bytes are not a list of buckets", bytes.len()))),
    }
}

fn name_of(number: i64) -> &'static str {
    match number {
        STATE => "State",
        INTEREST_WHOLE => "InterestWhole",
        INTEREST_ADDED => "InterestAdded",
        INTEREST_COMPLETE => "InterestComplete",
        RELAY => "Relay",
        ASK => "Ask",
        ANSWER => "Answer",
        REQUEST => "Request",
        RESPONSE => "Response",
        APP_SERVERS => "AppServers",
        APP_SERVERS_COMPLETE => "AppServersComplete",
        MOVE => "Move",
        MOVED => "Moved",
        MEMBERSHIP => "Membership",
        REVOCATION => "Revocation",
        _ => "Unknown",
    }
}

impl MoveStep {
    fn number(self) -> i64 {
        match self {
            Self::Inspect => 1,
            Self::Take => 2,
            Self::Arrived => 3,
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        [Self::Inspect, Self::Take, Self::Arrived].into_iter().find(|step| step.number() == number)
    }
}

impl RequestMethod {
    fn number(self) -> i64 {
        match self {
            Self::Get => 0,
            Self::Post => 1,
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Get),
            1 => Some(Self::Post),
            _ => None,
        }
    }
}

impl NodePhase {
    fn number(self) -> i64 {
        match self {
            Self::Starting => 0,
            Self::Ready => 1,
            Self::Draining => 2,
        }
    }

    fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Starting,
            2 => Self::Draining,
            _ => Self::Ready,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FieldProblem {
    #[error("{0}")]
    Read(ReadError),
    #[error("{0}: is missing")]
    Missing(&'static str),
    #[error("{0}: {1}")]
    Field(&'static str, ReadError),
    #[error("{0}: {1}")]
    Value(&'static str, String),
}

impl FieldProblem {
    fn of(self, kind: &'static str) -> NodeMessageError {
        NodeMessageError { kind, problem: self.to_string() }
    }
}

/// Fields of a message after its number. Each method reads the next one; the name is for errors.
struct MessageFields<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> MessageFields<'a> {
    fn next<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, ReadError>,
    ) -> Result<T, FieldProblem> {
        self.left = self.left.checked_sub(1).ok_or(FieldProblem::Missing(field))?;
        read(&mut self.reader).map_err(|error| FieldProblem::Field(field, error))
    }

    fn text(&mut self, field: &'static str) -> Result<ByteString, FieldProblem> {
        self.next(field, Reader::shared_text)
    }

    fn optional_text(&mut self, field: &'static str) -> Result<Option<ByteString>, FieldProblem> {
        self.next(field, |reader| if reader.take_nil() { Ok(None) } else { reader.shared_text().map(Some) })
    }

    fn binary(&mut self, field: &'static str) -> Result<Bytes, FieldProblem> {
        self.next(field, Reader::binary)
    }

    fn optional_binary(&mut self, field: &'static str) -> Result<Option<Bytes>, FieldProblem> {
        self.next(field, |reader| if reader.take_nil() { Ok(None) } else { reader.binary().map(Some) })
    }

    fn integer(&mut self, field: &'static str) -> Result<i64, FieldProblem> {
        self.next(field, Reader::integer)
    }

    fn unsigned(&mut self, field: &'static str) -> Result<u64, FieldProblem> {
        self.integer(field).map(i64::cast_unsigned)
    }

    fn number<T: TryFrom<i64>>(&mut self, field: &'static str) -> Result<T, FieldProblem> {
        let value = self.integer(field)?;
        T::try_from(value).map_err(|_| FieldProblem::Value(field, format!("is {value}, out of its range")))
    }

    fn app_servers(&mut self) -> Result<Vec<PresentAppServer>, FieldProblem> {
        let count = self.next("servers", Reader::array_len)?;
        if count > PRESENCE_SERVERS_MAX {
            return Err(FieldProblem::Value("servers", format!("{count} are more than {PRESENCE_SERVERS_MAX}")));
        }
        let left = self.left;
        let servers = (0..count).map(|_| self.app_server()).collect();
        self.left = left;
        servers
    }

    fn app_server(&mut self) -> Result<PresentAppServer, FieldProblem> {
        self.left = 1;
        self.left = self.next("server", Reader::array_len)?;
        let server = PresentAppServer {
            instance: self.short_text("instance")?,
            endpoint: self.short_text("endpoint")?,
            links: self.number("links")?,
            carried: self.number("carried")?,
        };
        while self.left > 0 {
            self.next("server", Reader::skip)?;
        }
        Ok(server)
    }

    fn short_text(&mut self, field: &'static str) -> Result<ByteString, FieldProblem> {
        let text = self.text(field)?;
        match text.len() {
            0..=PRESENCE_TEXT_MAX_BYTES => Ok(text),
            bytes => Err(FieldProblem::Value(field, format!("{bytes} bytes are too long"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{BroadcastData, Payloads, ServiceMessage, bytes_of_frame};

    fn body(message: &NodeMessage) -> Bytes {
        let frame = message.to_frame();
        // The length prefix of short messages is one byte.
        assert_eq!(bytes_of_frame(frame.len() - 1), frame.len());
        frame.slice(1..)
    }

    fn examples() -> Vec<(NodeMessage, &'static [u8])> {
        use NodeMessage as M;
        let (hub, frame) = (ByteString::from("chat"), Bytes::from_static(b"\x91\x03"));
        let state = NodeState { phase: NodePhase::Draining, members: 200, view: u64::MAX };
        let map = [7, 0x1234].into_iter().collect();
        let server = PresentAppServer { instance: "vm_1".into(), endpoint: "shop:1".into(), links: 5, carried: 1 };
        vec![
            (M::State(state), b"\x94\x64\x02\xcc\xc8\xff"),
            (M::Interest(InterestUpdate::Whole { hub: hub.clone(), map }), b"\x93\x65\xa4chat\xc4\x04\0\x07\x12\x34"),
            (
                M::Interest(InterestUpdate::Added { hub: hub.clone(), buckets: vec![1] }),
                b"\x93\x66\xa4chat\xc4\x02\0\x01",
            ),
            (M::Interest(InterestUpdate::Complete), b"\x91\x67"),
            (M::Relay { hub: hub.clone(), frame: frame.clone() }, b"\x93\x68\xa4chat\xc4\x02\x91\x03"),
            (M::Ask { question: 5, hub, frame: frame.clone() }, b"\x94\x69\x05\xa4chat\xc4\x02\x91\x03"),
            (M::Answer { question: 5, frame: Some(frame.clone()) }, b"\x93\x6a\x05\xc4\x02\x91\x03"),
            (M::Answer { question: 5, frame: None }, b"\x93\x6a\x05\xc0"),
            (
                M::Request { question: 6, method: RequestMethod::Post, target: "/a".into(), body: frame.clone() },
                b"\x95\x6b\x06\x01\xa2/a\xc4\x02\x91\x03",
            ),
            (M::Response { question: 6, status: 404, body: frame }, b"\x94\x6c\x06\xcd\x01\x94\xc4\x02\x91\x03"),
            (
                M::Presence(PresenceUpdate::Whole { hub: "?hub=a".into(), servers: vec![server] }),
                b"\x93\x6d\xa6?hub=a\x91\x94\xa4vm_1\xa6shop:1\x05\x01",
            ),
            (M::Presence(PresenceUpdate::Complete), b"\x91\x6e"),
            (
                M::Move { question: 7, step: MoveStep::Take, hub: "chat".into(), connection_id: "id".into() },
                b"\x95\x6f\x07\x02\xa4chat\xa2id",
            ),
            (M::Moved { question: 7, state: Some(Bytes::from_static(b"s")) }, b"\x93\x70\x07\xc4\x01s"),
            (M::Moved { question: 7, state: None }, b"\x93\x70\x07\xc0"),
            (
                M::Membership(SharedMembership {
                    hub: "chat".into(),
                    user: "ann".into(),
                    group: "red".into(),
                    left_ms: 9,
                    age_ms: 300,
                }),
                b"\x96\x71\xa4chat\xa3ann\xa3red\x09\xcd\x01\x2c",
            ),
            (
                M::Revocation(SharedRevocation {
                    user: Some("ann".into()),
                    audience: None,
                    app: Some("shop".into()),
                    issued_before_s: 9,
                    kept_until_s: 300,
                    closed_ms: 0,
                }),
                b"\x97\x72\xa3ann\xc0\xa4shop\x09\xcd\x01\x2c\x00",
            ),
            (
                M::Revocation(SharedRevocation {
                    user: Some("ann".into()),
                    audience: None,
                    app: None,
                    issued_before_s: 9,
                    kept_until_s: 300,
                    closed_ms: 7,
                }),
                b"\x97\x72\xa3ann\xc0\xc0\x09\xcd\x01\x2c\x07",
            ),
        ]
    }

    #[test]
    fn messages_are_the_same_bytes_in_every_version() {
        for (message, bytes) in examples() {
            assert_eq!(body(&message), bytes, "{message:?}");
            assert_eq!(NodeMessage::decode(&Bytes::from_static(bytes)), Ok(Some(message)));
        }
    }

    #[test]
    fn a_service_message_goes_through_as_it_is() {
        let payloads = Payloads::single(crate::hub::HubProtocol::Json, Bytes::from(vec![b'x'; 100_000]));
        let service = ServiceMessage::BroadcastData(BroadcastData { excluded: vec![], payloads });
        // The length prefix for 100 000 bytes is three bytes.
        let frame = service.to_frame().slice(3..);
        let mut out = BytesMut::new();
        encode_relay("chat", &frame, &mut out);
        assert_eq!(out, NodeMessage::Relay { hub: "chat".into(), frame: frame.clone() }.to_frame());
        let Ok(Some(NodeMessage::Relay { frame: read, .. })) = NodeMessage::decode(&out.freeze().slice(3..)) else {
            panic!("a relay comes back");
        };
        assert_eq!(ServiceMessage::decode(&read), Ok(Some(service)));
    }

    #[test]
    fn longer_messages_and_unknown_ones_are_fine() {
        let longer = Bytes::from_static(b"\x93\x67\xa1x\x92\x01\x02");
        assert_eq!(NodeMessage::decode(&longer), Ok(Some(NodeMessage::Interest(InterestUpdate::Complete))));
        let longer = Bytes::from_static(b"\x94\x6d\xa1h\x91\x95\xa1i\xa1e\x01\x00\xc3\x91\x07");
        let Ok(Some(NodeMessage::Presence(PresenceUpdate::Whole { servers, .. }))) = NodeMessage::decode(&longer)
        else {
            panic!("a list of app servers");
        };
        assert_eq!(servers.iter().map(|server| server.links).collect::<Vec<_>>(), [1]);
        for unknown in [&b"\x91\xcc\xc8"[..], b"\x92\x03\x01", b"\x92\xcd\x10\x00\xc0", b"\x95\x6b\x06\x09\xa2/a\xc4\0"]
        {
            assert_eq!(NodeMessage::decode(&Bytes::from_static(unknown)), Ok(None), "{unknown:x?}");
        }
        let later_phase = Bytes::from_static(b"\x94\x64\x09\x01\x02");
        let Ok(Some(NodeMessage::State(state))) = NodeMessage::decode(&later_phase) else { panic!("a state") };
        assert_eq!(state, NodeState { phase: NodePhase::Ready, members: 1, view: 2 });
    }

    #[test]
    fn errors_name_message_and_field() {
        let cases: [(&[u8], &str); 11] = [
            (b"", "of no type"),
            (b"\xc0", "of no type"),
            (b"\x92\x68\xa4chat", "Relay): frame: is missing"),
            (b"\x93\x68\x01\xc4\0", "Relay): hub: a text was expected, not an integer"),
            (b"\x94\x64\x01\xff\x01", "State): members: is -1, out of its range"),
            (b"\x94\x6c\x06\xce\0\x01\0\0\xc4\0", "Response): status: is 65536, out of its range"),
            (b"\x93\x65\xa0\xc4\x01\0", "InterestWhole): map: 1 bytes are neither"),
            (b"\x93\x66\xa0\xc4\x01\0", "InterestAdded): buckets: 1 bytes are not a list"),
            (b"\x93\x6d\xa0\x91\x93\xa0\xa0\x01", "AppServers): carried: is missing"),
            (b"\x93\x6d\xa0\x91\x94\xa0\xa0\xff\x01", "AppServers): links: is -1, out of its range"),
            (b"\x93\x6d\xa0\x91\x90", "AppServers): instance: is missing"),
        ];
        for (bytes, expected) in cases {
            let error = NodeMessage::decode(&Bytes::copy_from_slice(bytes)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_messages() {
        let names: Vec<_> = examples().iter().map(|(message, _)| message.name()).collect();
        let expected = "State InterestWhole InterestAdded InterestComplete Relay Ask Answer Answer Request Response \
                        AppServers AppServersComplete Move Moved Moved Membership Revocation Revocation";
        assert_eq!(names.join(" "), expected);
    }
}
