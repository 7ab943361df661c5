//! What is counted: one set per shard, written by that shard alone, summed when somebody looks.
//!
//! A plain relaxed atomic that only one thread writes costs about as much as a plain number.

mod causes;
mod histogram;
mod hub;
mod outcome;
mod relay;
mod sends;
mod sessions;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use causes::Causes;
pub(crate) use histogram::{Distribution, Exchange, FanOut, Histogram, Lifetime, Scale};
pub(crate) use hub::{HubCounters, Population, Speech};
pub(crate) use outcome::{Outcome, Outcomes};
pub(crate) use relay::{Passed, RelayCounters, RelayFailure};
pub(crate) use sends::{SendKind, Sends};
pub(crate) use sessions::{SessionEnd, Sessions};

/// Hubs that are counted one by one; more than this share the last place.
const HUBS_COUNTED: usize = 64;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds `amount`, on the one thread that writes this number. It costs what adding to a plain number does, where
    /// [`add`](Self::add) would lock its place in memory: for what is counted with each message.
    pub(crate) fn add_alone(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The number so far.
    #[must_use]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// Follows a part of it that has changed.
    pub(crate) fn follow(&self, before: usize, after: usize) {
        // Two's complement: what is added around the end is taken away.
        self.0.fetch_add((after as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }

    /// It is this now.
    pub(crate) fn set(&self, now: usize) {
        self.0.store(now as u64, Ordering::Relaxed);
    }

    #[must_use]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which way a frame of a link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Client → app server.
    Up,
    /// App server → client.
    Down,
}

/// What a frame of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Ping,
    Message,
}

/// Frames and bytes of one kind in one direction.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub frames: Counter,
    /// Bytes, length prefixes included.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts `frames` of `bytes` together, on the thread of its shard.
    pub(crate) fn count(&self, frames: u64, bytes: usize) {
        self.frames.add_alone(frames);
        self.bytes.add_alone(bytes as u64);
    }
}

/// A limit of the front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Sockets on the node.
    Connections,
    /// Connections of one address.
    ConnectionsPerAddress,
    /// New connections in a second: who waited, and who was sent away.
    Connects,
    /// Negotiates of one address that led to no connection.
    PendingPerAddress,
    /// How long the head of a request took.
    HeadTime,
    /// How large it is.
    HeadSize,
    /// How large the body of a request is.
    BodySize,
    /// How large a message is.
    MessageSize,
    /// Messages of one client in a second: pauses.
    Messages,
    /// Bytes of one client in a second: pauses.
    Bytes,
}

impl Limit {
    /// All limits, with their labels.
    pub(crate) const ALL: [(Limit, &'static str); 10] = [
        (Limit::Connections, "connections"),
        (Limit::ConnectionsPerAddress, "connections_per_address"),
        (Limit::Connects, "connects"),
        (Limit::PendingPerAddress, "pending_per_address"),
        (Limit::HeadTime, "head_time"),
        (Limit::HeadSize, "head_size"),
        (Limit::BodySize, "body_size"),
        (Limit::MessageSize, "message_size"),
        (Limit::Messages, "messages"),
        (Limit::Bytes, "bytes"),
    ];
}

/// What is counted by hub.
#[derive(Debug)]
struct Hubs {
    counted: Box<[HubCounters]>,
    others: Box<HubCounters>,
}

impl Default for Hubs {
    fn default() -> Self {
        Self { counted: (0..HUBS_COUNTED).map(|_| HubCounters::default()).collect(), others: Box::default() }
    }
}

/// All that one shard counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Seconds that the shard has counted: it lives.
    pub ticks: Counter,
    pub accepted: Counter,
    pub negotiated: Counter,
    /// Requests refused with a status of 400 or above.
    pub requests_refused: Causes,
    /// Sockets refused before there was a whole request.
    pub sockets_refused: Causes,
    /// Requests that are no sound HTTP.
    pub malformed: Counter,
    /// Upgrades refused because of the page that asked for them.
    pub refused_origins: Counter,
    /// Clients that the app was asked about and let in, or sent elsewhere.
    pub let_in_by_app: Counter,
    /// Clients that the app was asked about and refused.
    pub refused_by_app: Counter,
    /// Clients that were refused because the app could not be asked.
    pub app_not_asked: Counter,
    /// Downward frames that found no receiver of that name.
    pub unknown_receivers: Counter,
    /// Groups with members here, as of the last tick.
    pub groups: Gauge,
    /// Users with connections here, as of the last tick.
    pub users: Gauge,
    /// Bytes that wait because their clients read no faster.
    pub outbox_bytes: Gauge,
    /// Frames to many that were dropped for clients that read too slowly.
    pub dropped: Counter,
    /// Keep-alives sent to clients.
    pub keep_alives: Counter,
    /// What links went through.
    pub sessions: Sessions,
    /// Sends of app servers.
    pub sends: Sends,
    /// How long clients took for their hub handshakes.
    pub handshakes_of_clients: Histogram<Exchange>,
    /// How long app servers took to answer them.
    pub handshakes_of_apps: Histogram<Exchange>,
    /// How long client connections lived that have ended.
    pub lifetimes: Histogram<Lifetime>,
    /// Client connections that wait for an app server, as of the last tick.
    pub homeless: Gauge,
    /// Round trips on links.
    pub round_trips: Histogram<Exchange>,
    /// How long it took to open links.
    pub dials: Histogram<Exchange>,
    /// Client connections that were given another home.
    pub rehomed: Counter,
    /// Calls that were answered with an error because their app server was gone.
    pub calls_failed: Counter,
    /// TLS handshakes of clients.
    pub tls_handshakes: Outcomes,
    /// PROXY protocol headers of load balancers.
    pub proxy_headers: Outcomes,
    pub certificate_reads: Outcomes,
    /// Requests that were carried on.
    pub relay: RelayCounters,
    hubs: Hubs,
    traffic: [Traffic; 4],
    limits: [Counter; Limit::ALL.len()],
}

impl Counters {
    /// What is counted for the hub of this number.
    #[must_use]
    pub(crate) fn hub(&self, index: usize) -> &HubCounters {
        let Hubs { counted, others } = &self.hubs;
        counted.get(index).unwrap_or(others)
    }

    /// What is counted for each hub.
    pub(crate) fn hubs(&self) -> impl Iterator<Item = &HubCounters> {
        let Hubs { counted, others } = &self.hubs;
        counted.iter().chain(std::iter::once(&**others))
    }

    /// How often a limit was reached.
    #[must_use]
    pub(crate) fn limit(&self, limit: Limit) -> &Counter {
        let [connections, per_address, connects, pending, head_time, head_size, body, message, messages, bytes] =
            &self.limits;
        match limit {
            Limit::Connections => connections,
            Limit::ConnectionsPerAddress => per_address,
            Limit::Connects => connects,
            Limit::PendingPerAddress => pending,
            Limit::HeadTime => head_time,
            Limit::HeadSize => head_size,
            Limit::BodySize => body,
            Limit::MessageSize => message,
            Limit::Messages => messages,
            Limit::Bytes => bytes,
        }
    }

    /// Frames of links, by direction and kind.
    #[must_use]
    pub(crate) fn traffic(&self, direction: Direction, kind: FrameKind) -> &Traffic {
        let [up_ping, up_message, down_ping, down_message] = &self.traffic;
        match (direction, kind) {
            (Direction::Up, FrameKind::Ping) => up_ping,
            (Direction::Up, FrameKind::Message) => up_message,
            (Direction::Down, FrameKind::Ping) => down_ping,
            (Direction::Down, FrameKind::Message) => down_message,
        }
    }
}
