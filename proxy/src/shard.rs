//! What one thread owns, and how other threads reach it.
//!
//! Everything in a [`Shard`] is `!Send` on purpose: its tasks run on one thread and never wait for another.
//! Others put [`Parcel`]s into its inbox, whose bytes are bounded.

pub(crate) mod delivery;
pub(crate) mod directory;
pub(crate) mod outbox;

mod carry_out;
mod departures;
mod drain;
mod ending;
mod expiry;
mod flush;
mod inbox;
mod keep_alive;
mod look;
mod outbox_total;
mod past;
mod rehome;
mod shared;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use trunkline_protocol::service::OpenConnection;

use crate::metrics::{ConnectionCounters, Counters, HubCounters};
use crate::shard::delivery::{Aftermath, Delivery, Order, Outlet, Pace, Watches};
use crate::shard::directory::{Alike, Client, Directory, Hold, Opening, Place, Serial, Slot};

pub(crate) use carry_out::no_such_connection;
pub(crate) use ending::Ending;
pub(crate) use inbox::{Admission, Arrival, Inbox, Parcel, ShardSender, Turn};
pub(crate) use look::{Names, Row, Which};
pub(crate) use past::{Past, PastConnection, REMEMBERED_MS, short};
pub(crate) use shared::{Connectors, Shared, Sockets};
pub(crate) use watch::WatchError;

use expiry::Expiries;
use keep_alive::Wheel;
pub(crate) use rehome::{DATA_TYPE_HANDSHAKE, opening_until};
use rehome::{Homeless, MovedAway};

/// What all sockets of a shard read into. Large, so that a burst takes few system calls; there is only one.
const SCRATCH_BYTES: usize = 64 * 1024;

/// One thread's part of the node.
#[derive(Debug)]
pub(crate) struct Shard {
    index: u16,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    directory: RefCell<Directory>,
    aftermath: RefCell<Aftermath>,
    spare_orders: RefCell<Vec<Order>>,
    scratch: RefCell<Box<[u8]>>,
    wheel: RefCell<Wheel>,
    expiries: RefCell<Expiries>,
    tick: Cell<u32>,
    next_serial: Cell<Serial>,
    /// Ids that are over, and the tick at which they may be forgotten.
    ended: RefCell<VecDeque<(u32, Rc<str>)>>,
    /// All were told to leave, because the node stops: who comes now is told the same.
    is_drained: Cell<bool>,
    /// What the openings of its clients have in common.
    alike: RefCell<Alike>,
    /// Those without an app server.
    homeless: RefCell<Vec<Homeless>>,
    /// Those that were moved away from an app server which may not know.
    moved_away: RefCell<Vec<MovedAway>>,
    /// The clients whose messages somebody looks at.
    watches: Watches,
}

impl Shard {
    #[must_use]
    pub(crate) fn new(index: u16, shared: Arc<Shared>) -> Rc<Self> {
        let counters = shared.counters_of(index);
        Rc::new(Self {
            index,
            shared,
            counters,
            directory: RefCell::default(),
            aftermath: RefCell::default(),
            spare_orders: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            wheel: RefCell::default(),
            expiries: RefCell::default(),
            tick: Cell::new(1),
            next_serial: Cell::new(0),
            ended: RefCell::default(),
            is_drained: Cell::new(false),
            alike: RefCell::default(),
            homeless: RefCell::default(),
            moved_away: RefCell::default(),
            watches: Watches::default(),
        })
    }

    /// Which of the node's shards this is.
    #[must_use]
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// What it shares with the others.
    #[must_use]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    #[must_use]
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The current tick: whole seconds since the shard began.
    #[must_use]
    pub(crate) fn tick(&self) -> u32 {
        self.tick.get()
    }

    /// Lets `read` use the scratch buffer.
    pub(crate) fn with_scratch<T>(&self, read: impl FnOnce(&mut [u8]) -> T) -> T {
        read(&mut self.scratch.borrow_mut())
    }

    /// A number for the next client connection.
    #[must_use]
    pub(crate) fn next_serial(&self) -> Serial {
        let serial = self.next_serial.get();
        self.next_serial.set(serial.wrapping_add(1));
        serial
    }

    /// Takes a client connection in: from now on it can be found.
    pub(crate) fn open(&self, client: Client, user: Option<&str>) -> Slot {
        let id = client.id.clone();
        let serial = client.serial;
        let population = self.population(&client);
        population.opened.increment();
        population.open.follow(0, 1);
        let slot = self.directory.borrow_mut().insert(client, user);
        self.shared.routes.open(&id, Place { shard: self.index, slot });
        self.wheel.borrow_mut().watch(slot, serial, self.tick(), self.tick() + 1);
        slot
    }

    /// What is counted for the hub of a client.
    fn hub_counters(&self, client: &Client) -> &HubCounters {
        self.counters.hub(client.home.hub().get())
    }

    fn population(&self, client: &Client) -> &ConnectionCounters {
        self.hub_counters(client).connections(client.transport, client.content.speech())
    }

    /// Microseconds since the node started.
    #[must_use]
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.shared.uptime().as_micros()).unwrap_or(u64::MAX)
    }

    /// Reads something of a client connection, if it is still here.
    pub(crate) fn with_client<T>(&self, slot: Slot, serial: Serial, act: impl FnOnce(&mut Client) -> T) -> Option<T> {
        self.directory.borrow_mut().get_same(slot, serial).map(act)
    }

    /// A client has pinged: from now on its silence has an end.
    pub(crate) fn pinged(&self, slot: Slot) {
        if let Some(client) = self.directory.borrow_mut().get_mut(slot) {
            client.has_pinged = true;
        }
    }

    /// What is kept of an opening, for the case that another app server has to be told of it.
    #[must_use]
    pub(crate) fn keep_opening(&self, open: &OpenConnection) -> Opening {
        self.alike.borrow_mut().keep(open)
    }

    /// A client calls: it waits for the answer.
    pub(crate) fn called(&self, slot: Slot, invocation_id: &str) {
        let most = self.shared.settings.rehoming.pending_calls_max;
        if let Some(client) = self.directory.borrow_mut().get_mut(slot).filter(|client| client.can_move()) {
            client.kept.calls.begin(invocation_id);
            if client.kept.calls.is_full(most) {
                client.hold(Hold::Calls);
            }
        }
    }

    /// Sends one frame of the transport's own.
    pub(crate) fn send_frame(self: &Rc<Self>, slot: Slot, frame: &Bytes) {
        self.deliver(Pace::Direct, |delivery| {
            if let Some(client) = delivery.directory.get_mut(slot) {
                delivery.outlet.put(slot, client, frame);
            }
        });
        self.finish_turn();
    }

    /// Lets `act` give out frames.
    fn deliver<T>(&self, pace: Pace, act: impl FnOnce(&mut Delivery<'_>) -> T) -> T {
        let mut directory = self.directory.borrow_mut();
        let mut aftermath = self.aftermath.borrow_mut();
        act(&mut Delivery {
            directory: &mut directory,
            routes: &self.shared.routes,
            shard: self.index,
            outlet: Outlet {
                pace,
                limit_bytes: self.shared.settings.outbox.client_bytes,
                tick: self.tick(),
                aftermath: &mut aftermath,
                counters: &self.counters,
                watches: &self.watches,
            },
        })
    }
}
