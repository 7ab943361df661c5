//! Store of what must outlive the last node: revocations of tokens, memberships of users in groups, and records.
//!
//! Soft state (who is connected where) lives in the fleet. Hard state lives in an engine that operators already run:
//! this module writes no log, takes no lock and finds no consensus.
//!
//! ```text
//!  revocation ─► tables of all nodes ─► store          at once, and written when the store is there
//!  membership ─► store ─► tables of all nodes ─► answer      refused while the store is away
//!  store ── all at the start, then each change ─► tables of this node
//! ```
//!
//! Values are sealed, because other clients of the engine are not trusted ([`seal`]). Each write names the revision
//! that it replaces, so a key has one order of changes. Expiry is part of a value; the engine's own only cleans up.

mod broker;
mod broker_socket;
mod keeper;
#[cfg(test)]
mod memory_engine;
#[cfg(feature = "nats")]
mod nats_engine;
#[cfg(feature = "nats")]
mod nats_log;
#[cfg(feature = "nats")]
mod nats_streams;
mod seal;
mod store_engine;
mod stored_log;
mod stored_record;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::fleet::SharedRevocation;
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::service::{ServiceMessage, UserGroupChange};

use crate::engine::shard::{KeptMemberships, MEMBERSHIP_S};
use crate::features::admission::{Admission, Revocations};
use crate::features::user_group::{StoredMembership, UserGroups};
use crate::ground::clock::unix_seconds;
use crate::ground::config::{NatsSettings, Settings};
use crate::ground::metrics::StoreCounters;
use seal::DataKey;
use store_engine::{ANSWER_TIMEOUT, Connection, Engine};
use stored_record::{Record, StoreStep};

pub(crate) use broker::Broker;
pub(crate) use keeper::keep;
#[cfg(test)]
pub(crate) use memory_engine::MemoryEngine;
#[cfg(feature = "nats")]
pub use nats_engine::check_nats;
pub(crate) use stored_log::{StoredParts, StoredRecord};

/// Time for a write, with all attempts. Callers have an answer within 5 seconds.
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// Time after which writes don't wait any more for a store that is away.
const AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval between two attempts of a write.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum number of concurrent writes to the store; further ones wait.
const WRITES_MAX: usize = 256;

/// Reason why the store can't be used, and since when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store can't be used ({problem}): try again; what was requested may have happened")]
pub(crate) struct StoreAway {
    problem: String,
    since: Instant,
}

impl StoreAway {
    /// Names the cause only, for a text with its own remedy.
    pub(crate) fn cause(&self) -> String {
        format!("the store can't be used ({})", self.problem)
    }
}

/// The store of a node.
#[derive(Debug)]
pub(crate) struct Store {
    settings: NatsSettings,
    keys: AccessKeys,
    engine: Box<dyn Engine>,
    admission: Arc<Admission>,
    user_groups: Arc<UserGroups>,
    link: watch::Sender<Result<Arc<StoreLink>, StoreAway>>,
    writes: Semaphore,
    /// Changes of other nodes that this one has not received yet.
    pub(crate) behind: AtomicU64,
    pub(crate) counters: StoreCounters,
}

/// Open connection with its data key.
#[derive(Debug)]
struct StoreLink {
    connection: Box<dyn Connection>,
    key: Arc<DataKey>,
    server: String,
    /// Cancelled after a failure, so that the keeper opens another connection.
    is_broken: CancellationToken,
}

impl Store {
    /// Creates the store of a node with `--nats`.
    #[cfg(feature = "nats")]
    pub(crate) fn of_node(settings: &Settings, state: (&Arc<Admission>, &Arc<UserGroups>)) -> Option<Arc<Self>> {
        let nats = settings.nats.as_ref()?;
        Some(Self::new(Box::new(nats_engine::NatsEngine::new(nats)), nats.clone(), &settings.keys, state))
    }

    /// Without an engine there is no store.
    #[cfg(not(feature = "nats"))]
    pub(crate) fn of_node(_settings: &Settings, _state: (&Arc<Admission>, &Arc<UserGroups>)) -> Option<Arc<Self>> {
        None
    }

    /// Creates the store of a node with an engine in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(
        engine: &MemoryEngine,
        keys: &AccessKeys,
        state: (&Arc<Admission>, &Arc<UserGroups>),
    ) -> Arc<Self> {
        let nats = NatsSettings {
            servers: Vec::new(),
            prefix: "test".into(),
            replicas: None,
            credentials: None,
            ca: None,
            is_optional_at_start: false,
        };
        Self::new(Box::new(engine.clone()), nats, keys, state)
    }

    fn new(
        engine: Box<dyn Engine>,
        settings: NatsSettings,
        keys: &AccessKeys,
        (admission, user_groups): (&Arc<Admission>, &Arc<UserGroups>),
    ) -> Arc<Self> {
        user_groups.begin_storing();
        admission.is_waiting.store(true, Ordering::Relaxed);
        let servers: Vec<_> = settings.servers.iter().map(|server| &*server.url).collect();
        let problem = format!("connecting to {}", servers.join(", "));
        Arc::new(Self {
            keys: keys.clone(),
            engine,
            admission: admission.clone(),
            user_groups: user_groups.clone(),
            link: watch::Sender::new(Err(StoreAway { problem, since: Instant::now() })),
            writes: Semaphore::new(WRITES_MAX),
            behind: AtomicU64::new(0),
            counters: StoreCounters::default(),
            settings,
        })
    }

    /// Reason why this node serves no clients yet, if it doesn't.
    pub(crate) fn reason_closed(&self) -> Option<String> {
        let is_waiting = self.admission.is_waiting.load(Ordering::Acquire);
        is_waiting.then(|| format!("starting: reading the store: {}", self.away().problem))
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.borrow().is_ok()
    }

    /// Number of revocations and memberships that the store doesn't have yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.revocations().unwritten(unix_seconds(), u64::MAX).len() + self.user_groups.unwritten_len()
    }

    fn revocations(&self) -> &Revocations {
        &self.admission.revocations
    }

    fn away(&self) -> StoreAway {
        let slow = || StoreAway { problem: "no answer in time".into(), since: Instant::now() };
        self.link.borrow().as_ref().err().cloned().unwrap_or_else(slow)
    }

    /// Writes a revocation. Returns whether the store has it in time; if not, it is written later.
    pub(crate) async fn keep_revocation(&self, told: &SharedRevocation) -> bool {
        self.write(&Record::Revocation(told.clone()), StoreStep::Keep).await.is_ok()
    }

    /// Writes a change of a user's memberships before the nodes apply it. Other messages have no effect.
    pub(crate) async fn keep_first(&self, hub: &str, message: &ServiceMessage) -> Result<(), StoreAway> {
        use ServiceMessage as M;
        let (UserGroupChange { user_id, group, .. }, step) = match message {
            M::UserJoinGroup(change) | M::UserJoinGroupWithAck(change) if message.outlasts_connections() => {
                let seconds = change.ttl_s.unwrap_or_default().clamp(0, MEMBERSHIP_S).unsigned_abs();
                (change, StoreStep::Join { seconds })
            }
            M::UserLeaveGroup(change) | M::UserLeaveGroupWithAck(change) => (change, StoreStep::Leave),
            _ => return Ok(()),
        };
        let groups = group.clone().map_or_else(|| self.user_groups.groups_of(hub, user_id), |group| vec![group]);
        for group in groups {
            // A refused one is not stored; the nodes refuse it, too.
            if step == StoreStep::Leave || self.user_groups.check(hub, user_id, &group).is_ok() {
                let (hub, user) = (hub.into(), user_id.clone());
                let own = StoredMembership { hub, user, group, until_ms: 0, changed_ms: 0 };
                self.write(&Record::Membership(own), step).await?;
            }
        }
        Ok(())
    }

    /// Writes the next state of a record, until it is stored or too late.
    async fn write(&self, own: &Record, step: StoreStep) -> Result<(), StoreAway> {
        let until = Instant::now() + WRITE_TIMEOUT;
        let Ok(Ok(_permit)) = timeout_at(until, self.writes.acquire()).await else { return Err(self.away()) };
        loop {
            let link = self.wait_for_link(until).await?;
            match timeout_at(until.min(Instant::now() + ANSWER_TIMEOUT), self.try_write(&link, own, step)).await {
                Ok(Ok(true)) => return Ok(()),
                // Another node was faster.
                Ok(Ok(false)) => {}
                Ok(Err(_)) | Err(_) => link.is_broken.cancel(),
            }
            self.counters.retries.increment();
            if Instant::now() + RETRY_INTERVAL >= until {
                return Err(self.away());
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Writes the next state of a record, if there is one, and applies the state in force. Returns `false` if another
    /// write was faster.
    async fn try_write(&self, link: &StoreLink, own: &Record, step: StoreStep) -> Result<bool, String> {
        let key = link.key.key_of(own);
        let current = link.connection.get(&key).await?;
        // A value that can't be trusted is overwritten.
        let stored = current.value.and_then(|value| self.opened(&link.key, &key, &value));
        let now_ms = self.user_groups.store_now_ms();
        let next = own.next(step, stored.as_ref(), now_ms);
        if let Some(record) = &next
            && let Some(kept_ms) = record.kept_ms(now_ms)
        {
            let value = link.key.seal(&key, record).map_err(|error| error.to_string())?;
            let begun = Instant::now();
            if !link.connection.write(&key, value, current.revision, Some(kept_ms)).await? {
                return Ok(false);
            }
            self.counters.durations.observe_duration(begun.elapsed());
            self.counters.writes.increment();
        }
        match (next.or(stored), own) {
            (Some(Record::Revocation(told)), _) => self.revocations().note_stored(&told),
            (Some(Record::Membership(stored)), _) => drop(self.user_groups.apply(&stored)),
            // The end of what the store never had.
            (None, Record::Membership(own)) => self.user_groups.note_absent(own),
            (None, Record::Revocation(_)) => {}
        }
        Ok(true)
    }

    async fn wait_for_link(&self, until: Instant) -> Result<Arc<StoreLink>, StoreAway> {
        let (mut links, now) = (self.link.subscribe(), Instant::now());
        let since = links.borrow().as_ref().err().map_or(now, |away| away.since);
        let usable = links.wait_for(|link| link.as_ref().is_ok_and(|link| !link.is_broken.is_cancelled()));
        match timeout_at(until.min(since + AWAY_TIMEOUT).max(now), usable).await {
            Ok(Ok(link)) => link.clone(),
            _ => Err(self.away()),
        }
    }

    fn opened(&self, key: &DataKey, name: &str, value: &[u8]) -> Option<Record> {
        let opened = key.open(name, value);
        if opened.is_none() {
            self.counters.untrusted.increment();
        }
        opened
    }
}
