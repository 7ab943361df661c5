//! The seam of a store: what an engine offers. Values are sealed, and keys are hashes. Errors are for people, with what
//! the server said.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::time::timeout;

use crate::ground::clock::unix_ms;

/// Time for one answer of an engine. A silent server is left for another one.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Tolerated difference of the clocks, in milliseconds: as between nodes.
const CLOCK_SKEW_MS: u64 = 300_000;

pub(super) type EngineAnswer<'a, T> = BoxFuture<'a, Result<T, String>>;

/// All stored values, at least one, and then each change. The error ends a watch.
pub(super) type StoreChanges = BoxStream<'static, Result<Change, String>>;

/// Current value of a key. A key without a value may have a revision.
#[derive(Debug, Default)]
pub(super) struct Revised {
    pub(super) value: Option<Bytes>,
    /// 0 if the key was never written.
    pub(super) revision: u64,
}

#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) value: Bytes,
    /// Changes that this node has not received yet.
    pub(super) behind: u64,
}

/// Open connection to an engine.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Box<dyn Connection>,
    pub(super) server: String,
    /// The server's clock in milliseconds since 1970.
    pub(super) now_ms: u64,
}

/// Open connection for messages only.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) messages: Box<dyn EngineMessages>,
    pub(super) server: String,
}

pub(super) trait Engine: Debug + Send + Sync {
    fn open(&self) -> EngineAnswer<'_, Opened>;

    /// Opens a connection for messages, which needs no values.
    fn connect(&self) -> EngineAnswer<'_, Connected>;
}

pub(super) trait Connection: Debug + Send + Sync {
    fn get<'a>(&'a self, key: &'a str) -> EngineAnswer<'a, Revised>;

    /// Writes a value if this is still the key's newest revision. Returns whether it was. The engine may remove the
    /// value after `kept_ms`.
    fn write<'a>(&'a self, key: &'a str, value: Bytes, revision: u64, kept_ms: Option<u64>) -> EngineAnswer<'a, bool>;

    fn changes(&self) -> EngineAnswer<'_, StoreChanges>;

    /// Checks that the server answers, and has the same values as before.
    fn check(&self) -> EngineAnswer<'_, ()>;

    fn logs(&self) -> &dyn EngineLogs;
}

/// Messages between the clients of the engine. None is kept: a message can be lost, and other clients may read it.
pub(super) trait EngineMessages: Debug + Send + Sync {
    /// Maximum size of a message.
    fn message_max(&self) -> usize;

    /// Messages of a subject from now on, in the order of each sender. The stream ends with the connection.
    fn subscribe<'a>(&'a self, subject: &'a str) -> EngineAnswer<'a, BoxStream<'static, Bytes>>;

    fn publish(&self, subject: String, message: Bytes) -> EngineAnswer<'_, ()>;

    /// Waits until the server has all published messages.
    fn flush(&self) -> EngineAnswer<'_, ()>;

    /// Adds what the server said on its own account, such as a missing right.
    fn explain(&self, problem: &str) -> String {
        problem.to_owned()
    }
}

/// Logs of values, each with a name. The engine keeps no empty log.
pub(super) trait EngineLogs: Send + Sync {
    /// Maximum size of a value.
    fn value_max(&self) -> usize;

    /// Appends a value if this is still the revision of the log's newest value; 0 for an empty log. Returns the new
    /// revision, or `None` if it was not. The engine may remove the value after `kept_ms`.
    fn append<'a>(&'a self, log: &'a str, value: Bytes, newest: u64, kept_ms: u64) -> EngineAnswer<'a, Option<u64>>;

    /// Revision of the newest value; 0 for an empty log.
    fn newest<'a>(&'a self, log: &'a str) -> EngineAnswer<'a, u64>;

    /// All values up to a revision, the oldest first.
    fn read<'a>(&'a self, log: &'a str, newest: u64) -> EngineAnswer<'a, Vec<(u64, Bytes)>>;

    /// Removes all values before a revision.
    fn trim<'a>(&'a self, log: &'a str, before: u64) -> EngineAnswer<'a, ()>;
}

pub(super) async fn in_time<T>(answer: EngineAnswer<'_, T>) -> Result<T, String> {
    timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

/// Refuses a clock behind the store's: values that have ended would hold again.
pub(super) fn check_clock(store_now_ms: u64) -> Result<(), String> {
    let behind_ms = store_now_ms.saturating_sub(unix_ms());
    if behind_ms <= CLOCK_SKEW_MS {
        return Ok(());
    }
    Err(format!("the clock of this machine is {} s behind the server's: synchronise both (NTP)", behind_ms / 1000))
}
