//! Messages between the ends: numbered content, and requests between nodes, app servers and clients.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use trunkline_protocol::fleet::MoveStep;

/// Number of a connection, unique in a schedule.
pub(crate) type ConnectionNumber = usize;

/// Process of a node, unique in a schedule.
pub(crate) type NodeNumber = usize;

/// Message from an app server to a client, identified by counts of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) app: usize,
    pub(crate) sender: usize,
    /// Number of the sender's last message to many clients, including this one.
    pub(crate) many: u64,
    /// Number of the sender's message to this client alone, if it is one.
    pub(crate) alone: Option<u64>,
}

impl Numbered {
    /// Length of a frame.
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn to_frame(self) -> Bytes {
        let mut frame = BytesMut::with_capacity(Self::BYTES);
        frame.put_u64(self.app as u64);
        frame.put_u64(self.sender as u64);
        frame.put_u64(self.many);
        frame.put_u64(self.alone.unwrap_or_default());
        frame.freeze()
    }

    pub(crate) fn read(mut frame: &[u8]) -> Self {
        let mut next = || frame.get_u64();
        let (app, sender, many, alone) = (next(), next(), next(), next());
        let index = |number| usize::try_from(number).unwrap_or_default();
        Self { app: index(app), sender: index(sender), many, alone: (alone > 0).then_some(alone) }
    }
}

/// Message about a connection from a node to an app server. Marks and confirmations name the links that carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToApp {
    Open,
    Data(u64),
    Closed,
    Pause,
    Resume,
    Move,
    Done { number: i64, links: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToNode {
    Many { epoch: i64, frame: Bytes },
    Data { connection: ConnectionNumber, frame: Bytes },
    Close { connection: ConnectionNumber },
    PauseAck { connection: ConnectionNumber },
    Moved { connection: ConnectionNumber, epoch: i64 },
    Mark { connection: ConnectionNumber, number: i64, links: u32 },
}

impl ToNode {
    /// Encodes messages that a connection's home may hold.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        let (tag, connection, rest) = match self {
            Self::Data { connection, frame } => (1, connection, frame.clone()),
            Self::Close { connection } => (2, connection, Bytes::new()),
            Self::PauseAck { connection } | Self::Moved { connection, .. } | Self::Mark { connection, .. } => {
                (3, connection, Bytes::new())
            }
            Self::Many { frame, .. } => (4, &0, frame.clone()),
        };
        bytes.put_u8(tag);
        bytes.put_u64(*connection as u64);
        bytes.put(rest);
        bytes.freeze()
    }

    pub(crate) fn from_bytes(mut bytes: Bytes) -> Self {
        let (tag, connection) = (bytes.get_u8(), bytes.get_u64());
        let connection = usize::try_from(connection).unwrap_or_default();
        match tag {
            1 => Self::Data { connection, frame: bytes },
            2 => Self::Close { connection },
            _ => Self::PauseAck { connection },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BetweenNodes {
    Asks { question: u64, step: MoveStep, connection: ConnectionNumber },
    Answers { question: u64, state: Option<Bytes> },
}

/// Message over a client's socket, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OverSocket {
    /// The client requests a new connection.
    Begin(ConnectionNumber),
    /// The client reconnects to its connection.
    Return(ConnectionNumber),
    Accepted,
    Refused,
    Sequence(u64),
    Ack(u64),
    Message(Bytes),
    Goodbye,
}
