//! What is counted: one set per shard, written by that shard alone, summed when somebody looks.
//!
//! A plain relaxed atomic that only one thread writes costs about as much as a plain number.

mod relay;

use std::sync::atomic::{AtomicU64, Ordering};

pub use relay::{Failures, Passed, RelayCounters, RelayFailure};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The number so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which way a frame of a link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client → app server.
    Up,
    /// App server → client.
    Down,
}

/// What a frame of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A service ping.
    Ping,
    /// Everything else.
    Message,
}

/// Frames and bytes of one kind in one direction.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Frames.
    pub frames: Counter,
    /// Bytes, length prefixes included.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts `frames` of `bytes` together.
    pub fn count(&self, frames: u64, bytes: usize) {
        self.frames.add(frames);
        self.bytes.add(bytes as u64);
    }
}

/// Why a client connection ended, as far as this version tells causes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The client closed, or its socket ended.
    Client,
    /// The hub handshake was refused or did not come.
    Handshake,
    /// The app server closed it.
    App,
    /// It was silent for too long.
    Timeout,
    /// It sent what breaks a rule or a limit.
    Protocol,
    /// It read too slowly.
    SlowClient,
    /// Its home link was lost.
    LinkLost,
    /// The node stops.
    Drained,
}

impl Cause {
    /// All causes, with their labels.
    pub const ALL: [(Cause, &'static str); 8] = [
        (Cause::Client, "client"),
        (Cause::Handshake, "handshake"),
        (Cause::App, "app"),
        (Cause::Timeout, "timeout"),
        (Cause::Protocol, "protocol"),
        (Cause::SlowClient, "slow_client"),
        (Cause::LinkLost, "link_lost"),
        (Cause::Drained, "drained"),
    ];

    /// The label in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::ALL.iter().find(|(cause, _)| *cause == self).map_or("unknown", |(_, label)| label)
    }
}

/// All that one shard counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sockets accepted.
    pub accepted: Counter,
    /// Negotiations answered.
    pub negotiated: Counter,
    /// Requests refused with a status of 400 or above.
    pub refused: Counter,
    /// Client connections opened.
    pub opened: Counter,
    /// Messages that clients sent up.
    pub messages_up: Counter,
    /// Deliveries: one frame to one client.
    pub deliveries: Counter,
    /// Downward frames that found no receiver of that name.
    pub unknown_receivers: Counter,
    /// Keep-alives sent to clients.
    pub keep_alives: Counter,
    /// Links lost after their handshake.
    pub links_lost: Counter,
    /// Requests that were carried on.
    pub relay: RelayCounters,
    closed: [Counter; Cause::ALL.len()],
    traffic: [Traffic; 4],
}

impl Counters {
    /// How many connections ended for this cause.
    #[must_use]
    pub fn closed(&self, cause: Cause) -> &Counter {
        let [client, handshake, app, timeout, protocol, slow, lost, drained] = &self.closed;
        match cause {
            Cause::Client => client,
            Cause::Handshake => handshake,
            Cause::App => app,
            Cause::Timeout => timeout,
            Cause::Protocol => protocol,
            Cause::SlowClient => slow,
            Cause::LinkLost => lost,
            Cause::Drained => drained,
        }
    }

    /// Frames of links, by direction and kind.
    #[must_use]
    pub fn traffic(&self, direction: Direction, kind: FrameKind) -> &Traffic {
        let [up_ping, up_message, down_ping, down_message] = &self.traffic;
        match (direction, kind) {
            (Direction::Up, FrameKind::Ping) => up_ping,
            (Direction::Up, FrameKind::Message) => up_message,
            (Direction::Down, FrameKind::Ping) => down_ping,
            (Direction::Down, FrameKind::Message) => down_message,
        }
    }
}
