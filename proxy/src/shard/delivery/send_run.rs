//! Run of sends: messages of one batch for the same receivers, one behind the other.
//!
//! Their frames are joined once, so that a receiver for whom nothing waits costs what it costs with one message. All
//! others get them one by one.
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

/// Joined bytes: beyond them a frame's own work is little beside its bytes.
const JOINED_MAX_BYTES: usize = 16 * 1024;

/// Messages for the same receivers; mostly there is one.
#[derive(Debug)]
pub(crate) struct SendRun {
    first: (Framed, SendOrigin),
    more: Vec<(Framed, SendOrigin)>,
    /// Bytes of all frames.
    bytes: usize,
    /// Frames of all together, if there is more than one.
    joined: Option<Framed>,
}

impl SendRun {
    #[must_use]
    pub(crate) fn new(first: (Framed, SendOrigin)) -> Self {
        Self { bytes: first.0.bytes(), first, more: Vec::new(), joined: None }
    }

    /// Appends a message, if it can be joined.
    pub(crate) fn take(&mut self, (message, origin): (&Framed, SendOrigin)) -> bool {
        let bytes = self.bytes + message.bytes();
        if bytes > JOINED_MAX_BYTES || !message.is_like(&self.first.0) {
            return false;
        }
        self.bytes = bytes;
        self.more.push((message.clone(), origin));
        true
    }

    /// Joins the frames: there are no more.
    pub(crate) fn join(&mut self) {
        if !self.is_single() {
            self.joined = Some(Framed::join(self.messages().map(|(message, _)| message)));
        }
    }

    /// Number of its messages.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        1 + self.more.len()
    }

    #[must_use]
    pub(crate) fn is_single(&self) -> bool {
        self.more.is_empty()
    }

    /// Its messages in their order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (&Framed, SendOrigin)> + Clone {
        iter::once(&self.first).chain(&self.more).map(|(message, origin)| (message, *origin))
    }

    /// All frames for clients with this content, as one; `None` leaves them out.
    #[must_use]
    pub(crate) fn frames(&self, content: Content) -> Option<&Bytes> {
        self.joined.as_ref().unwrap_or(&self.first.0).get(content)
    }
}

/// Receivers of one run by the content of their transports, summed up on the way: each costs an addition and nothing
/// shared.
#[derive(Debug, Default)]
pub(crate) struct ReceiverTally([u64; Content::ALL.len()]);

impl ReceiverTally {
    /// Adds one receiver with this content.
    pub(crate) fn add(&mut self, content: Content) {
        if let Some(count) = self.0.get_mut(content.number()) {
            *count += 1;
        }
    }

    /// Number of the receivers.
    #[must_use]
    pub(crate) fn receivers(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Bytes of the payloads that they got.
    #[must_use]
    pub(crate) fn bytes(&self, run: &SendRun) -> u64 {
        let of_all = |content| run.messages().filter_map(move |(message, _)| message.get(content));
        let bytes = |content| of_all(content).map(|frame| websocket::payload_bytes(frame) as u64).sum::<u64>();
        Content::ALL.iter().zip(self.0).filter(|(_, count)| *count > 0).map(|(of, count)| count * bytes(*of)).sum()
    }
}
