//! Client with stateful reconnect: numbers its messages, keeps them until acknowledged, and checks received ones.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use trunkline_protocol::hub::{ReceivedSequence, ReplayBuffer};

use super::letter::{ConnectionNumber, Numbered};
use crate::ledger::{Check, broken};

/// Last messages of one sender received by a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) many: Option<u64>,
    pub(crate) alone: u64,
}

/// Stage of a connection from the client's perspective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VisitorStage {
    /// The client has no socket.
    Out,
    /// The socket is not accepted yet.
    Knocking {
        /// The client reconnects to its connection.
        returns: bool,
    },
    Connected,
}

/// Client with a sequence of connections.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) stage: VisitorStage,
    pub(crate) connection: Option<ConnectionNumber>,
    pub(crate) socket: Option<usize>,
    pub(crate) sent: ReplayBuffer<Bytes>,
    pub(crate) received: ReceivedSequence,
    /// Number of messages sent over its connection.
    pub(crate) made: u64,
    pub(crate) seen: BTreeMap<(usize, usize), Seen>,
    /// Changes with each attempt, which invalidates old timeouts.
    pub(crate) attempt: u64,
    /// Number of consecutive reconnect attempts.
    pub(crate) tries: u32,
}

impl Visitor {
    pub(crate) fn new() -> Self {
        Self {
            stage: VisitorStage::Out,
            connection: None,
            socket: None,
            sent: ReplayBuffer::default(),
            received: ReceivedSequence::default(),
            made: 0,
            seen: BTreeMap::new(),
            attempt: 0,
            tries: 0,
        }
    }

    /// Drops its connection, so that the next attempt starts a new one.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self { attempt: self.attempt + 1, ..Self::new() };
    }

    pub(crate) fn next_message(&mut self) -> Bytes {
        self.made += 1;
        let mut frame = BytesMut::with_capacity(8);
        frame.put_u64(self.made);
        let frame = frame.freeze();
        self.sent.push(frame.clone(), 1);
        frame
    }

    /// Receives a message that is new on this connection.
    pub(crate) fn take(&mut self, message: Numbered) -> Check {
        let seen = self.seen.entry((message.app, message.sender)).or_default();
        match message.alone {
            None if seen.many.is_some_and(|many| many + 1 != message.many) => {
                return broken(format!("a client gets {message:?} after {seen:?}"));
            }
            Some(alone) if alone != seen.alone + 1 || seen.many.is_some_and(|many| many != message.many) => {
                return broken(format!("a client gets {message:?} after {seen:?}"));
            }
            Some(alone) => seen.alone = alone,
            None => {}
        }
        seen.many = Some(message.many);
        Ok(())
    }
}
