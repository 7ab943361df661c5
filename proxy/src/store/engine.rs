//! The seam of a store: what an engine offers. Values are sealed, and keys are hashes.
//!
//! Engines: NATS, and memory, which ends with the node: for tests, and for builds without NATS.

use bytes::Bytes;

#[cfg(any(test, not(feature = "nats")))]
use super::memory_engine::{MemoryChanges, MemoryEngine};
#[cfg(feature = "nats")]
use super::nats_engine::{NatsChanges, NatsConnection, NatsEngine};

/// Current value of a key. A key without a value may have a revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Revised {
    pub(super) value: Option<Bytes>,
    /// 0 if the key was never written.
    pub(super) revision: u64,
}

/// Item of a watch: first all that is stored, then [`Complete`](Self::Complete), then each change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Value {
        key: String,
        value: Bytes,
        /// Changes that this node has not received yet.
        behind: u64,
    },
    Complete,
}

#[derive(Debug, Clone)]
pub(super) enum Engine {
    #[cfg(feature = "nats")]
    Nats(NatsEngine),
    #[cfg(any(test, not(feature = "nats")))]
    Memory(MemoryEngine),
}

/// Open connection to an engine, with the server's address and clock.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) server: String,
    /// Milliseconds since 1970.
    pub(super) now_ms: u64,
}

#[derive(Debug)]
pub(super) enum Connection {
    #[cfg(feature = "nats")]
    Nats(NatsConnection),
    #[cfg(any(test, not(feature = "nats")))]
    Memory(MemoryEngine),
}

pub(super) enum Changes {
    #[cfg(feature = "nats")]
    Nats(Box<NatsChanges>),
    #[cfg(any(test, not(feature = "nats")))]
    Memory(MemoryChanges),
}

impl Engine {
    /// Opens a connection. The error names the server, and what it said.
    pub(super) async fn open(&self) -> Result<Opened, String> {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(engine) => engine.open().await,
            #[cfg(any(test, not(feature = "nats")))]
            Self::Memory(engine) => engine.open(),
        }
    }

    /// Servers, for people.
    pub(super) fn servers(&self) -> String {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(engine) => engine.servers(),
            #[cfg(any(test, not(feature = "nats")))]
            Self::Memory(_) => "memory".into(),
        }
    }
}

impl Connection {
    pub(super) async fn get(&self, key: &str) -> Result<Revised, String> {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(connection) => connection.get(key).await,
            #[cfg(any(test, not(feature = "nats")))]
            Self::Memory(engine) => engine.get(key),
        }
    }

    /// Writes a value if this is still the key's newest revision. Returns whether it was. The engine may remove the
    /// value after `kept_ms`.
    pub(super) async fn write(
        &self,
        key: &str,
        value: Bytes,
        revision: u64,
        kept_ms: Option<u64>,
    ) -> Result<bool, String> {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(connection) => connection.write(key, value, revision, kept_ms).await,
            #[cfg(any(test, not(feature = "nats")))]
            Self::Memory(engine) => engine.write(key, value, revision, kept_ms),
        }
    }

    /// Begins a watch with all that is stored.
    pub(super) async fn changes(&self) -> Result<Changes, String> {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(connection) => Ok(Changes::Nats(Box::new(connection.changes().await?))),
            #[cfg(any(test, not(feature = "nats")))]
            Self::Memory(engine) => Ok(Changes::Memory(engine.changes())),
        }
    }

    /// Checks that the server answers, and has the same values as before.
    pub(super) async fn check(&self) -> Result<(), String> {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(connection) => connection.check().await,
            #[cfg(any(test, not(feature = "nats")))]
            Self::Memory(engine) => engine.check(),
        }
    }
}

impl Changes {
    /// Next item. Fails once the watch is cut.
    pub(super) async fn next(&mut self) -> Result<Change, String> {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(changes) => changes.next().await,
            #[cfg(any(test, not(feature = "nats")))]
            Self::Memory(changes) => changes.next().await,
        }
    }
}
