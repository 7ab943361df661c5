//! Transit of a client connection from one node to another: what is sent to it meanwhile, at both nodes.
//!
//! Both nodes get what app servers send to many. Each app server says with which of its epochs the new owner begins, and
//! each such send says the epoch in which it began: so it is delivered once, by the old owner or by the new one.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use trunkline_protocol::fleet::CountedFrame;
use trunkline_protocol::service::ClientInvocation;

use crate::shard::command::MembershipChange;
use crate::shard::send_origin::SendOrigin;
use crate::upstream::{AppServerId, Asker};

/// Frame that was sent to a connection in transit.
#[derive(Debug)]
struct TransitFrame {
    /// `None` for what is for this connection alone.
    origin: Option<SendOrigin>,
    frame: CountedFrame,
}

/// Frames that are sent to a connection in transit, in order.
#[derive(Debug, Default)]
pub(crate) struct Transit {
    frames: Vec<TransitFrame>,
    bytes: usize,
    /// Changes of its groups since it is in transit.
    pub group_changes: Vec<MembershipChange>,
    /// Requests for client results, which are made once it has arrived.
    pub requests: Vec<(Arc<dyn Asker>, ClientInvocation, SendOrigin)>,
    /// At the old owner, once the new one has asked for the connection.
    pub departure: Option<Departure>,
}

/// Departure of a connection: answers that it waits for, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Departure {
    /// App servers that have not answered.
    pub waits_for: Vec<AppServerId>,
    /// Its own app server has not acknowledged that it pauses.
    pub waits_for_pause: bool,
    /// Epochs of the app servers that have answered.
    pub epochs: Vec<(AppServerId, i64)>,
    /// Takes the state of the connection; `None` once it has.
    pub answer: Option<oneshot::Sender<Option<Bytes>>>,
}

impl Departure {
    /// Whether nothing is waited for any more.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        self.answer.is_some() && self.waits_for.is_empty() && !self.waits_for_pause
    }
}

impl Transit {
    /// Transit of a connection that departs.
    #[must_use]
    pub(crate) fn departing(departure: Departure) -> Self {
        Self { departure: Some(departure), ..Self::default() }
    }

    /// Keeps a frame until it is known who delivers it.
    pub(crate) fn push(&mut self, origin: Option<SendOrigin>, frame: Bytes, messages: u32) {
        self.bytes += frame.len();
        self.frames.push(TransitFrame { origin, frame: (frame, messages) });
    }

    /// Whether the state of the connection has left: another node has it, or nobody.
    #[must_use]
    pub(crate) fn is_given(&self) -> bool {
        self.departure.as_ref().is_some_and(|departure| departure.answer.is_none())
    }

    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that the old owner delivers: all that began before the epoch of their app server.
    #[must_use]
    pub(crate) fn of_old_owner(self, epochs: &[(AppServerId, i64)]) -> Vec<CountedFrame> {
        let is_old = |origin: SendOrigin| epoch_of(epochs, origin.app).is_none_or(|epoch| origin.epoch < epoch);
        let frames = self.frames.into_iter().filter(|it| it.origin.is_none_or(is_old));
        frames.map(|it| it.frame).collect()
    }

    /// Frames that the new owner delivers. App servers that the old owner does not know of send here alone.
    #[must_use]
    pub(crate) fn of_new_owner(&mut self, epochs: &[(AppServerId, i64)]) -> Vec<CountedFrame> {
        let frames = mem::take(&mut self.frames).into_iter();
        let of_new = frames.filter(|it| it.origin.is_none_or(|origin| is_for_new_owner(epochs, origin)));
        of_new.map(|it| it.frame).collect()
    }
}

/// Whether the new owner delivers a send.
#[must_use]
pub(crate) fn is_for_new_owner(epochs: &[(AppServerId, i64)], origin: SendOrigin) -> bool {
    // What another node passes on goes to both, and the old owner has it.
    origin.app != AppServerId::OTHER_NODE && epoch_of(epochs, origin.app).is_none_or(|epoch| origin.epoch >= epoch)
}

fn epoch_of(epochs: &[(AppServerId, i64)], app: AppServerId) -> Option<i64> {
    epochs.iter().find(|(known, _)| *known == app).map(|(_, epoch)| *epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transit(sends: &[(Option<(u32, i64)>, &'static str)]) -> Transit {
        let mut transit = Transit::default();
        for (origin, frame) in sends {
            let origin = origin.map(|(app, epoch)| SendOrigin { app: AppServerId::from(app), epoch });
            transit.push(origin, Bytes::from_static(frame.as_bytes()), 1);
        }
        transit
    }

    fn text(frames: Vec<CountedFrame>) -> String {
        frames.into_iter().map(|(frame, _)| String::from_utf8(frame.into()).unwrap()).collect()
    }

    #[test]
    fn each_send_is_delivered_by_one_of_the_two_owners() {
        let epochs = [(AppServerId::from(1), 2), (AppServerId::from(2), 5)];
        let sends = [
            (Some((1, 1)), "a"),
            (Some((1, 2)), "b"),
            (Some((2, 4)), "c"),
            (Some((1, 1)), "d"),
            (Some((2, 6)), "e"),
            (Some((1, 3)), "f"),
        ];
        assert_eq!(text(transit(&sends).of_old_owner(&epochs)), "acd");
        assert_eq!(text(transit(&sends).of_new_owner(&epochs)), "bef");
        assert_eq!(transit(&sends).bytes(), 6);
    }

    #[test]
    fn what_is_for_the_connection_alone_is_delivered_where_it_comes() {
        let sends = [(None, "a"), (Some((3, 0)), "b")];
        assert_eq!(text(transit(&sends).of_old_owner(&[])), "ab");
        assert_eq!(text(transit(&sends).of_new_owner(&[])), "ab");
    }
}
