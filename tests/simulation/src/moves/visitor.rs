//! Client with stateful reconnect: it numbers what it sends, keeps it until it is acknowledged, and judges what it
//! gets.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use trunkline_protocol::hub::{ReceivedSequence, ReplayBuffer};

use super::letter::{ConnectionNumber, Numbered};
use crate::ledger::{Check, broken};

/// Last messages of one sender that a client has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) many: Option<u64>,
    pub(crate) alone: u64,
}

/// Stage of a client's connection, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VisitorStage {
    /// It has no socket.
    Out,
    /// Its socket is not accepted yet.
    Knocking {
        /// It comes back to its connection.
        returns: bool,
    },
    Connected,
}

/// One client, with one connection after the other.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) stage: VisitorStage,
    pub(crate) connection: Option<ConnectionNumber>,
    pub(crate) socket: Option<usize>,
    pub(crate) sent: ReplayBuffer<Bytes>,
    pub(crate) received: ReceivedSequence,
    /// Messages that it has sent over its connection.
    pub(crate) made: u64,
    pub(crate) seen: BTreeMap<(usize, usize), Seen>,
    /// Changed with each attempt, so that old time-outs are void.
    pub(crate) attempt: u64,
    /// Attempts to come back, one after the other.
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

    /// Forgets its connection: the next one begins anew.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self { attempt: self.attempt + 1, ..Self::new() };
    }

    /// Next message of the client.
    pub(crate) fn next_message(&mut self) -> Bytes {
        self.made += 1;
        let mut frame = BytesMut::with_capacity(8);
        frame.put_u64(self.made);
        let frame = frame.freeze();
        self.sent.push(frame.clone(), 1);
        frame
    }

    /// Takes a message that has come for the first time over this connection.
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
