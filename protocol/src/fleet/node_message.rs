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

use super::interest::{BucketList, InterestUpdate};
use super::presence::{AppServerList, PresenceUpdate};
use crate::fields::{Field, FieldResult, Fields, Form, count, form, name, numbered};
use crate::message_pack::Writer;
use crate::service::write_frame;

/// Maximum encoded size apart from texts and binaries.
const ENVELOPE_BYTES: usize = 40;

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

macro_rules! node_messages {
    ($(
        $number:literal $name:literal [$($field:ident $(as $form:ident)? $($wire:literal)?),*] $variant:ident $content:tt;
    )*) => {
        impl NodeMessage {
            /// Appends the message with its length prefix. Panics if the message exceeds 2 GiB, the limit of the length
            /// prefix.
            pub fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$variant $content => {
                        let expected_bytes = ENVELOPE_BYTES $(+ $field.expected_bytes())*;
                        write_frame(expected_bytes, out, |writer| {
                            begin(writer, 1 + count!($($field)*), $number);
                            $(<form!($($form)?)>::write($field, writer);)*
                        });
                    })*
                }
            }

            fn read(number: i64, fields: &mut Fields) -> FieldResult<Option<Self>> {
                Ok(Some(match number {
                    $($number => {
                        $(let $field = fields.value_as::<form!($($form)?), _>(name!($field $($wire)?))?;)*
                        Self::$variant $content
                    })*
                    _ => return Ok(None),
                }))
            }

            /// Name of this kind of message in logs and metrics.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant $content => {
                        let _ = ($($field,)*);
                        $name
                    })*
                }
            }
        }

        fn name_of(number: i64) -> &'static str {
            match number {
                $($number => $name,)*
                _ => "Unknown",
            }
        }
    };
}

// Number, name, fields in wire order, and the variant that has them.
node_messages! {
    100 "State" [phase, members, view] State(NodeState { phase, members, view });
    101 "InterestWhole" [hub, map] Interest(InterestUpdate::Whole { hub, map });
    102 "InterestAdded" [hub, buckets as BucketList] Interest(InterestUpdate::Added { hub, buckets });
    103 "InterestComplete" [] Interest(InterestUpdate::Complete);
    104 "Relay" [hub, frame] Relay { hub, frame };
    105 "Ask" [question, hub, frame] Ask { question, hub, frame };
    106 "Answer" [question, frame] Answer { question, frame };
    107 "Request" [question, method, target, body] Request { question, method, target, body };
    108 "Response" [question, status, body] Response { question, status, body };
    109 "AppServers" [hub, servers as AppServerList] Presence(PresenceUpdate::Whole { hub, servers });
    110 "AppServersComplete" [] Presence(PresenceUpdate::Complete);
    111 "Move" [question, step, hub, connection_id "connectionId"] Move { question, step, hub, connection_id };
    112 "Moved" [question, state] Moved { question, state };
    113 "Membership" [hub, user, group, left_ms "leftMs", age_ms "ageMs"]
        Membership(SharedMembership { hub, user, group, left_ms, age_ms });
    114 "Revocation"
        [user, audience, app, issued_before_s "issuedBeforeS", kept_until_s "keptUntilS", closed_ms "closedMs"]
        Revocation(SharedRevocation { user, audience, app, issued_before_s, kept_until_s, closed_ms });
}

numbered!(MoveStep as integer: 1 Inspect, 2 Take, 3 Arrived);
numbered!(RequestMethod as integer: 0 Get, 1 Post);
numbered!(NodePhase as integer: 0 Starting, 1 Ready, 2 Draining; else Ready);

impl NodeMessage {
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
        let (number, mut fields) = Fields::of_message(body)
            .map_err(|error| NodeMessageError { kind: "of no type", problem: error.to_string() })?;
        match Self::read(number, &mut fields) {
            Err(error) if !error.is_unknown_number() => {
                Err(NodeMessageError { kind: name_of(number), problem: error.to_string() })
            }
            message => Ok(message.unwrap_or_default()),
        }
    }
}

/// Appends an encoded [`NodeMessage::Relay`] directly from a frame body. Panics as [`NodeMessage::encode`] does.
pub fn encode_relay(hub: &str, frame: &[u8], out: &mut BytesMut) {
    write_frame(ENVELOPE_BYTES + hub.len() + frame.len(), out, |writer| {
        begin(writer, 3, 104);
        writer.text(hub);
        writer.binary(frame);
    });
}

/// Appends an encoded [`NodeMessage::Ask`] directly from a frame body. Panics as [`NodeMessage::encode`] does.
pub fn encode_ask(question: u64, hub: &str, frame: &[u8], out: &mut BytesMut) {
    write_frame(ENVELOPE_BYTES + hub.len() + frame.len(), out, |writer| {
        begin(writer, 4, 105);
        question.write(writer);
        writer.text(hub);
        writer.binary(frame);
    });
}

fn begin(out: &mut Writer, items: usize, number: i64) {
    out.array_len(items);
    out.integer(number);
}

#[cfg(test)]
mod tests {
    use super::super::PresentAppServer;
    use super::*;
    use crate::limits::{PRESENCE_SERVERS_MAX, PRESENCE_TEXT_MAX_BYTES};
    use crate::service::{BroadcastData, FrameBuffer, Payloads, ServiceMessage, bytes_of_frame};

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
    fn lists_and_texts_of_app_servers_are_limited() {
        let decode = |count: usize, bytes: usize| {
            let text = ByteString::from("x".repeat(bytes));
            let server = PresentAppServer { instance: text.clone(), endpoint: text, links: 1, carried: 0 };
            let whole = PresenceUpdate::Whole { hub: "chat".into(), servers: vec![server; count] };
            let mut buffer = FrameBuffer::default();
            buffer.push(NodeMessage::Presence(whole).to_frame());
            NodeMessage::decode(&buffer.next_body().unwrap().unwrap()).map_err(|error| error.problem)
        };
        assert!(decode(PRESENCE_SERVERS_MAX, 1).is_ok() && decode(1, PRESENCE_TEXT_MAX_BYTES).is_ok());
        assert_eq!(decode(PRESENCE_SERVERS_MAX + 1, 1), Err("servers: has 1025 items, over 1024".into()));
        assert_eq!(decode(1, PRESENCE_TEXT_MAX_BYTES + 1), Err("instance: 257 bytes are too long".into()));
    }

    #[test]
    fn names_are_those_of_the_messages() {
        let names: Vec<_> = examples().iter().map(|(message, _)| message.name()).collect();
        let expected = "State InterestWhole InterestAdded InterestComplete Relay Ask Answer Answer Request Response \
                        AppServers AppServersComplete Move Moved Moved Membership Revocation Revocation";
        assert_eq!(names.join(" "), expected);
    }
}
