//! Run of sends: consecutive messages of one batch for the same receivers.
//!
//! Their frames are joined once, so the run costs a receiver with an empty outbox as much as one message. Others get
//! the frames individually.
//!
//! ```text
//!  batch:  all: a │ all: b │ all: c │ group: d
//!          └──── one run: abc ────┘
//! ```

use std::iter;

use bytes::Bytes;

use super::framed::Framed;
use crate::shard::command::audience::SendOrigin;
use crate::shard::content::Content;
use crate::transport::websocket;

/// Maximum joined bytes. Beyond it, the per-frame cost is small compared to the bytes.
const JOINED_MAX_BYTES: usize = 16 * 1024;

/// Messages for the same receivers, usually a single one.
#[derive(Debug)]
pub(crate) struct SendRun {
    first: (Framed, SendOrigin),
    more: Vec<(Framed, SendOrigin)>,
    bytes: usize,
    /// Joined frames, if there is more than one message.
    joined: Option<Framed>,
}

impl SendRun {
    pub(crate) fn new(first: (Framed, SendOrigin)) -> Self {
        Self { bytes: first.0.bytes(), first, more: Vec::new(), joined: None }
    }

    /// Appends a message if it can be joined.
    pub(crate) fn take(&mut self, (message, origin): (&Framed, SendOrigin)) -> bool {
        let bytes = self.bytes + message.bytes();
        if bytes > JOINED_MAX_BYTES || !message.is_like(&self.first.0) {
            return false;
        }
        self.bytes = bytes;
        self.more.push((message.clone(), origin));
        true
    }

    /// Joins the frames of the complete run.
    pub(crate) fn join(&mut self) {
        if !self.is_single() {
            self.joined = Some(Framed::join(self.messages().map(|(message, _)| message)));
        }
    }

    pub(crate) fn len(&self) -> usize {
        1 + self.more.len()
    }

    pub(crate) fn is_single(&self) -> bool {
        self.more.is_empty()
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = (&Framed, SendOrigin)> + Clone {
        iter::once(&self.first).chain(&self.more).map(|(message, origin)| (message, *origin))
    }

    /// All frames for this content as one; `None` skips its clients.
    pub(crate) fn frames(&self, content: Content) -> Option<&Bytes> {
        self.joined.as_ref().unwrap_or(&self.first.0).get(content)
    }
}

/// Receivers of one run by transport content, counted during the send with one unshared addition each.
#[derive(Debug, Default)]
pub(crate) struct ReceiverTally([u64; Content::ALL.len()]);

impl ReceiverTally {
    pub(crate) fn add(&mut self, content: Content) {
        if let Some(count) = self.0.get_mut(content.number()) {
            *count += 1;
        }
    }

    pub(crate) fn receivers(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Payload bytes received by all receivers.
    pub(crate) fn bytes(&self, run: &SendRun) -> u64 {
        let of_all = |content| run.messages().filter_map(move |(message, _)| message.get(content));
        let bytes = |content| of_all(content).map(|frame| websocket::payload_bytes(frame) as u64).sum::<u64>();
        Content::ALL.iter().zip(self.0).filter(|(_, count)| *count > 0).map(|(of, count)| count * bytes(*of)).sum()
    }
}
