//! How other threads reach a shard: an inbox whose bytes are bounded.
//!
//! Waiting for room can't lock up: a shard's inbox is emptied by a task that waits for nobody.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;

use super::Shard;
use crate::limits::Seat;
use crate::shard::delivery::Order;
use crate::transport::http_transport::InnerHalf;
use crate::upstream::{Hub, Pool};

/// What may wait in one shard's inbox. Two of the largest frames fit, so that none can get stuck.
const INBOX_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// What may be put into an inbox.
#[derive(Debug)]
pub(crate) enum Parcel {
    /// Orders of one turn of a link.
    Turn(Turn),
    /// A socket that is about to become a client connection.
    Admit(Box<Admission>),
    /// Keep the link of this slot open from now on.
    KeepLink(Arc<Pool>, usize),
    /// Somebody looks at the shard, or does something in it by hand.
    Visit(Visit),
}

/// What somebody does in a shard who is no link and no client.
pub(crate) struct Visit(Box<Act>);

type Act = dyn FnOnce(&Rc<Shard>) + Send;

impl Visit {
    pub(crate) fn begin(self, shard: &Rc<Shard>) {
        (self.0)(shard);
    }
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Visit")
    }
}

/// Orders that another shard's link brought.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The orders, to be carried out in this order.
    pub orders: Vec<Order>,
    _room: OwnedSemaphorePermit,
}

/// How a client's bytes reach its shard.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A WebSocket; the upgrade is on its way.
    Upgrade(OnUpgrade),
    /// Requests carry them, to and from the other end of this pipe.
    Pipe(InnerHalf),
}

/// A connect request that was accepted.
#[derive(Debug)]
pub(crate) struct Admission {
    pub arrival: Arrival,
    /// What it travels by.
    pub transport: Transport,
    /// The hub that it is for.
    pub hub: Arc<Hub>,
    /// Who connects; the hub protocol is not known yet.
    pub open: OpenConnection,
    /// A token names the connection id.
    pub is_negotiated: bool,
    /// The user, if authenticated.
    pub user: Option<String>,
    /// Its place among the connections of its address.
    pub seat: Option<Box<Seat>>,
    /// When it is to be closed, in seconds since 1970: with its token, where the hub wants that.
    pub expires_s: Option<u64>,
}

/// The sending end of a shard's inbox.
#[derive(Debug, Clone)]
pub(crate) struct ShardSender {
    parcels: mpsc::UnboundedSender<Parcel>,
    room: Arc<Semaphore>,
}

/// The receiving end of a shard's inbox.
pub(crate) type Inbox = mpsc::UnboundedReceiver<Parcel>;

impl ShardSender {
    #[must_use]
    pub(crate) fn new() -> (Self, Inbox) {
        let (parcels, inbox) = mpsc::unbounded_channel();
        (Self { parcels, room: Arc::new(Semaphore::new(INBOX_MAX_BYTES as usize)) }, inbox)
    }

    /// Gives orders of some `bytes` to the shard, once there is room. Cancelled, nothing was given.
    pub(crate) async fn give(&self, orders: Vec<Order>, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(INBOX_MAX_BYTES / 2);
        if let Ok(room) = self.room.clone().acquire_many_owned(bytes).await {
            self.put(Parcel::Turn(Turn { orders, _room: room }));
        }
    }

    /// Has `act` done by the shard, behind what waits there, and tells what came of it. It is to be short: meanwhile nobody
    /// is served. `None` when the shard is gone.
    pub(crate) async fn visit<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Rc<Shard>) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        // Nobody waits for it any more: fine.
        self.leave(move |shard| drop(answer.send(act(shard))));
        answered.await.ok()
    }

    /// The same, without waiting.
    pub(crate) fn leave(&self, act: impl FnOnce(&Rc<Shard>) + Send + 'static) {
        self.put(Parcel::Visit(Visit(Box::new(act))));
    }

    /// Puts something in that is not counted in bytes: sockets bound the one kind, pools the other.
    pub(crate) fn put(&self, parcel: Parcel) {
        // It fails when the shard's thread is gone: the node is stopping, and nobody is left to be served.
        drop(self.parcels.send(parcel));
    }
}
