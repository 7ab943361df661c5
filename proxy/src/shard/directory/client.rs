//! One client connection, as its shard keeps it.

use std::rc::Rc;

use tokio::sync::Notify;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::Transport;

use super::sets::Membership;
use super::{Hold, Holds, Kept, Serial};
use crate::metrics::ClientProtocol;
use crate::net::socket::Socket;
use crate::shard::outbox::Outbox;
use crate::upstream::HomeLink;

/// A client connection. An idle one costs little more than this.
///
/// What a delivery looks at stands together in front: with many clients its price is the memory it touches.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Client {
    /// Where it is in its life.
    pub status: Status,
    pub(super) mark: u64,
    /// Tick at which something was sent to it last.
    pub last_sent: u32,
    /// What its transport carries.
    pub content: Content,
    /// It has frames that leave at the end of this turn.
    pub is_dirty: bool,
    /// A task waits until its socket takes more.
    pub is_flushing: bool,
    /// Its time-out counts from its first ping on.
    pub has_pinged: bool,
    /// What waits for it.
    pub outbox: Outbox,
    /// Its socket, read by a task of its own and written by whoever delivers.
    pub socket: Socket,
    /// Tick at which something came from it last.
    pub last_heard: u32,
    /// Tells it from others that had its place.
    pub serial: Serial,
    /// Where all that it sends goes; names its hub and its app server.
    pub home: HomeLink,
    /// Its public id.
    pub id: Rc<str>,
    /// What is seldom looked at.
    pub kept: Box<Kept>,
    holds: Holds,
    /// How its bytes travel.
    pub transport: Transport,
    /// A token names its id, so that the id has to be remembered when it is over.
    pub is_negotiated: bool,
    /// When it reads too slowly it misses what was sent to many, and is not closed.
    pub may_miss: bool,
    /// Its transport shows by itself that it lives: no pings, no time-out.
    pub has_inherent_keep_alive: bool,
    pub(super) memberships: Vec<Membership>,
}

/// What the transport of a client carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Messages of this hub protocol.
    Hub(HubProtocol),
    /// Whatever the app of a raw endpoint likes.
    Raw,
}

impl Content {
    /// How metrics name it.
    #[must_use]
    pub(crate) fn speech(self) -> ClientProtocol {
        match self {
            Content::Hub(HubProtocol::Json) => ClientProtocol::Json,
            Content::Hub(HubProtocol::MessagePack) => ClientProtocol::MessagePack,
            Content::Raw => ClientProtocol::Raw,
        }
    }
}

/// ```text
///  Opening ──app server answers the hub handshake──► Open ◄── at once, at a raw endpoint
///     └───────────────any end────────────┬───────────┘
///                                        ▼
///                                     Closing ──socket ends, or it is time──► removed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The app server has not answered the hub handshake: only its answer may go out.
    Opening {
        /// Tick at which the client is given up.
        until: u32,
    },
    /// All is well.
    Open,
    /// Ended; what waits is still flushed, nothing new is sent.
    Closing {
        /// Tick at which the socket is cut.
        until: u32,
    },
}

impl Client {
    /// A client connection at its beginning.
    #[must_use]
    pub(crate) fn new(id: Rc<str>, serial: Serial, home: HomeLink, content: Content, socket: Socket) -> Self {
        Self {
            id,
            serial,
            home,
            content,
            socket,
            outbox: Outbox::Empty,
            status: Status::Opening { until: u32::MAX },
            last_sent: 0,
            last_heard: 0,
            transport: Transport::WebSockets,
            is_negotiated: false,
            has_inherent_keep_alive: false,
            has_pinged: false,
            may_miss: false,
            is_dirty: false,
            is_flushing: false,
            kept: Box::default(),
            holds: Holds::default(),
            mark: 0,
            memberships: Vec::new(),
        }
    }

    /// Whether sends to many reach it.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.status == Status::Open
    }

    /// Whether it has ended, and only its socket is left.
    #[must_use]
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.status, Status::Closing { .. })
    }

    /// Whether it can be opened at another app server. A raw endpoint's can't: its handler there would begin anew, and
    /// nothing could tell it where the one before had come to.
    #[must_use]
    pub(crate) fn can_move(&self) -> bool {
        matches!(self.content, Content::Hub(_)) && self.kept.opening.is_some()
    }

    /// Has it not be read, for this reason.
    pub(crate) fn hold(&mut self, hold: Hold) {
        self.holds.add(hold);
    }

    /// This is no reason any more. When none is left it is read again, from this tick on: its silence while it was not
    /// read is not held against it.
    pub(crate) fn release(&mut self, hold: Hold, now: u32) {
        if !self.holds.contains(hold) {
            return;
        }
        self.holds.remove(hold);
        if self.holds.are_none() {
            self.last_heard = now;
            self.open_gate();
        }
    }

    /// It is over: nothing holds it any more.
    pub(crate) fn release_all(&mut self) {
        self.holds = Holds::default();
        self.open_gate();
    }

    /// Why it is not read.
    #[must_use]
    pub(crate) fn holds(&self) -> Holds {
        self.holds
    }

    /// What its reader waits for while it is not to be read.
    pub(crate) fn gate(&mut self) -> Option<Rc<Notify>> {
        (!self.holds.are_none()).then(|| Rc::clone(self.kept.gate.get_or_insert_default()))
    }

    fn open_gate(&mut self) {
        if let Some(gate) = self.kept.gate.take() {
            gate.notify_waiters();
        }
    }

    /// Leaves it out of the send that this mark was made for.
    pub(crate) fn exclude(&mut self, mark: u64) {
        self.mark = mark;
    }

    /// Whether it was left out of the send that this mark was made for.
    #[must_use]
    pub(crate) fn is_excluded(&self, mark: u64) -> bool {
        self.mark == mark
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn a_delivery_touches_two_cache_lines_of_a_client_and_all_of_it_is_small() {
        assert!(offset_of!(Client, socket) + size_of::<Socket>() <= 128);
        assert!(size_of::<Client>() <= 192, "{}", size_of::<Client>());
    }
}
