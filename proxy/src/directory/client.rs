//! One client connection, as its shard keeps it.

use std::rc::Rc;

use tokio::sync::Notify;
use trunkline_protocol::hub::HubProtocol;

use super::Serial;
use super::sets::Membership;
use crate::link::Home;
use crate::outbox::Outbox;
use crate::socket::Socket;

/// A client connection. An idle one costs little more than this.
#[derive(Debug)]
pub struct Client {
    /// Its public id.
    pub id: Rc<str>,
    /// Tells it from others that had its place.
    pub serial: Serial,
    /// Where all that it sends goes; names its hub and its app server.
    pub home: Home,
    /// What it speaks.
    pub protocol: HubProtocol,
    /// Its socket, shared with the task that reads it.
    pub socket: Rc<Socket>,
    /// What waits for it.
    pub outbox: Outbox,
    /// Where it is in its life.
    pub status: Status,
    /// Tick at which something was sent to it last.
    pub last_sent: u32,
    /// Tick at which something came from it last.
    pub last_heard: u32,
    /// A token names its id, so that the id has to be remembered when it is over.
    pub is_negotiated: bool,
    /// Its time-out counts from its first ping on.
    pub has_pinged: bool,
    /// It has frames that leave at the end of this turn.
    pub is_dirty: bool,
    /// A task waits until its socket takes more.
    pub is_flushing: bool,
    /// Set while its app server wants it paused: its reader waits for this.
    pub pause: Option<Rc<Notify>>,
    pub(super) mark: u64,
    pub(super) memberships: Vec<Membership>,
}

/// ```text
///  Opening ──app server answers the hub handshake──► Open
///     └───────────────any end────────────┬───────────┘
///                                        ▼
///                                     Closing ──socket ends, or it is time──► removed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
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
    pub fn new(id: Rc<str>, serial: Serial, home: Home, protocol: HubProtocol, socket: Rc<Socket>) -> Self {
        Self {
            id,
            serial,
            home,
            protocol,
            socket,
            outbox: Outbox::Empty,
            status: Status::Opening { until: u32::MAX },
            last_sent: 0,
            last_heard: 0,
            is_negotiated: false,
            has_pinged: false,
            is_dirty: false,
            is_flushing: false,
            pause: None,
            mark: 0,
            memberships: Vec::new(),
        }
    }

    /// Whether sends to many reach it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status == Status::Open
    }

    /// Whether it has ended, and only its socket is left.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.status, Status::Closing { .. })
    }

    /// Leaves it out of the send that this mark was made for.
    pub fn exclude(&mut self, mark: u64) {
        self.mark = mark;
    }

    /// Whether it was left out of the send that this mark was made for.
    #[must_use]
    pub fn is_excluded(&self, mark: u64) -> bool {
        self.mark == mark
    }
}
