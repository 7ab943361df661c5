//! Store of what must outlive the last node: revocations of tokens, and memberships of users in groups.
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

mod engine;
mod keeper;
#[cfg(test)]
mod memory_engine;
#[cfg(feature = "nats")]
mod nats_engine;
mod record;
mod seal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::fleet::SharedRevocation;
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::service::{ServiceMessage, UserGroupChange};

use crate::admission::{Admission, Revocations};
use crate::clock::unix_seconds;
use crate::config::{NatsSettings, Settings};
use crate::metrics::StoreCounters;
use crate::shard::{KeptMemberships, MEMBERSHIP_S};
use crate::user_group::{StoredMembership, UserGroups};
use engine::{ANSWER_TIMEOUT, Connection, Engine};
use record::{Record, Step};
use seal::DataKey;

pub(crate) use keeper::keep;
#[cfg(feature = "nats")]
pub use nats_engine::check_nats;

/// Time for a write, with all attempts. Callers have an answer within 5 seconds.
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// Time after which writes don't wait any more for a store that is away.
const AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval between two attempts of a write.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum number of concurrent writes to the store; further ones wait.
const WRITES_MAX: usize = 256;

/// What keeps the store from being used, and since when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store is not reachable ({problem}): try again; what was requested may have happened")]
pub(crate) struct StoreAway {
    problem: String,
    since: Instant,
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
        self.write(&Record::Revocation(told.clone()), Step::Keep).await.is_ok()
    }

    /// Writes a change of a user's memberships before the nodes apply it. Other messages have no effect.
    pub(crate) async fn keep_first(&self, hub: &str, message: &ServiceMessage) -> Result<(), StoreAway> {
        use ServiceMessage as M;
        let (UserGroupChange { user_id, group, .. }, step) = match message {
            M::UserJoinGroup(change) | M::UserJoinGroupWithAck(change) if message.outlasts_connections() => {
                let seconds = change.ttl_s.unwrap_or_default().clamp(0, MEMBERSHIP_S).unsigned_abs();
                (change, Step::Join { seconds })
            }
            M::UserLeaveGroup(change) | M::UserLeaveGroupWithAck(change) => (change, Step::Leave),
            _ => return Ok(()),
        };
        let groups = group.clone().map_or_else(|| self.user_groups.of(hub, user_id), |group| vec![group]);
        for group in groups {
            // A refused one is not stored; the nodes refuse it, too.
            if step == Step::Leave || self.user_groups.check(hub, user_id, &group).is_ok() {
                let (hub, user) = (hub.into(), user_id.clone());
                let own = StoredMembership { hub, user, group, until_ms: 0, changed_ms: 0 };
                self.write(&Record::Membership(own), step).await?;
            }
        }
        Ok(())
    }

    /// Writes the next state of a record, until it is stored or too late.
    async fn write(&self, own: &Record, step: Step) -> Result<(), StoreAway> {
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
    async fn try_write(&self, link: &StoreLink, own: &Record, step: Step) -> Result<bool, String> {
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

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::AccessKey;

    use super::memory_engine::MemoryEngine;
    use super::*;
    use crate::auth::AccessSettings;
    use crate::clock::unix_ms;
    use crate::net::connector::Connector;
    use crate::shard::{ShardSender, Shared};

    /// A node with a store in memory.
    struct Node {
        store: Arc<Store>,
        keeper: tokio::task::JoinHandle<()>,
    }

    impl Drop for Node {
        fn drop(&mut self) {
            self.keeper.abort();
        }
    }

    fn keys(keys: &[&AccessKey]) -> AccessKeys {
        AccessKeys::new(keys.iter().map(|key| (*key).clone()).collect()).unwrap()
    }

    fn start(engine: &MemoryEngine, keys: &AccessKeys) -> Node {
        let settings = Settings::embedded(keys.clone(), Vec::new(), false);
        let admission = Admission::new(keys, AccessSettings::default(), Connector::default());
        let user_groups = UserGroups::of_node(&settings, &admission.signing_keys);
        let nats = NatsSettings {
            servers: Vec::new(),
            prefix: "test".into(),
            replicas: None,
            credentials: None,
            ca: None,
            is_optional_at_start: false,
        };
        let store = Store::new(Box::new(engine.clone()), nats, keys, (&admission, &user_groups));
        let shared = Shared::alone(settings, vec![ShardSender::new().0]);
        Node { keeper: tokio::spawn(keep(Some(store.clone()), shared)), store }
    }

    async fn until(is_so: impl Fn() -> bool) {
        // Tokens have times of the system's clock, which is not paused.
        let begun = std::time::Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never happens");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn open(engine: &MemoryEngine, keys: &AccessKeys) -> Node {
        let node = start(engine, keys);
        until(|| node.store.is_connected()).await;
        node
    }

    fn revocation(user: &str) -> SharedRevocation {
        let now_s = unix_seconds();
        // The store's clock is paused time, which runs ahead while a test waits.
        let (issued_before_s, kept_until_s) = (now_s, now_s + 30 * 86_400);
        SharedRevocation {
            user: Some(user.into()),
            audience: None,
            app: None,
            issued_before_s,
            kept_until_s,
            closed_ms: 0,
        }
    }

    fn revoke(node: &Node, user: &str) -> SharedRevocation {
        let told = revocation(user);
        node.store.revocations().revoke(&told, unix_seconds()).unwrap();
        told
    }

    fn join(user: &str, seconds: i64) -> ServiceMessage {
        let change =
            UserGroupChange { user_id: user.into(), group: Some("red".into()), ack_id: 0, ttl_s: Some(seconds) };
        ServiceMessage::UserJoinGroupWithAck(change)
    }

    fn is_in(node: &Node, user: &str) -> bool {
        !node.store.user_groups.of("chat", user).is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_starts_knows_what_was_stored() {
        let (engine, keys) = (MemoryEngine::default(), keys(&[&AccessKey::random()]));
        let node = open(&engine, &keys).await;
        let told = revoke(&node, "ben");
        assert!(node.store.keep_revocation(&told).await);
        node.store.keep_first("chat", &join("ann", 600)).await.unwrap();
        assert!(is_in(&node, "ann") && node.store.unwritten() == 0);
        drop(node);
        let next = start(&engine, &keys);
        assert!(next.store.reason_closed().is_some() && next.store.admission.is_waiting.load(Ordering::Relaxed));
        until(|| next.store.is_connected()).await;
        assert!(next.store.reason_closed().is_none() && !next.store.admission.is_waiting.load(Ordering::Relaxed));
        assert!(is_in(&next, "ann") && next.store.revocations().len(unix_seconds()) == 1);
        assert_eq!(next.store.unwritten(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_follow_each_other() {
        let (engine, keys) = (MemoryEngine::default(), keys(&[&AccessKey::random()]));
        let (one, other) = (open(&engine, &keys).await, open(&engine, &keys).await);
        one.store.keep_first("chat", &join("ann", 600)).await.unwrap();
        until(|| is_in(&other, "ann")).await;
        let leave = UserGroupChange { user_id: "ann".into(), ..Default::default() };
        other.store.keep_first("chat", &ServiceMessage::UserLeaveGroup(leave)).await.unwrap();
        until(|| !is_in(&one, "ann")).await;
        drop(one.store.user_groups.note("chat", &join("ben", 600)));
        until(|| is_in(&other, "ben") && one.store.unwritten() == 0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_store_revocations_wait_and_memberships_are_refused() {
        let (engine, keys) = (MemoryEngine::default(), keys(&[&AccessKey::random()]));
        let node = open(&engine, &keys).await;
        engine.set_away(Some("gone"));
        until(|| !node.store.is_connected()).await;
        let begun = Instant::now();
        let told = revoke(&node, "ben");
        assert!(!node.store.keep_revocation(&told).await);
        let refused = node.store.keep_first("chat", &join("ann", 600)).await.unwrap_err().to_string();
        assert!(refused.contains("gone") && !is_in(&node, "ann"), "{refused}");
        assert!(begun.elapsed() < Duration::from_secs(10) && node.store.unwritten() == 1);
        engine.set_away(None);
        until(|| node.store.unwritten() == 0).await;
        drop(node);
        assert_eq!(open(&engine, &keys).await.store.revocations().len(unix_seconds()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn rubbish_copies_and_deletions_of_other_clients_change_nothing() {
        let (engine, keys) = (MemoryEngine::default(), keys(&[&AccessKey::random()]));
        let node = open(&engine, &keys).await;
        node.store.keep_first("chat", &join("ann", 600)).await.unwrap();
        let of_ann = engine.keys().into_iter().find(|key| key.starts_with("membership")).unwrap();
        let old = engine.value(&of_ann);
        node.store.keep_first("chat", &join("ann", 6_000)).await.unwrap();
        let new = engine.value(&of_ann);
        let data_key = node.store.link.borrow().as_ref().unwrap().key.clone();
        let is_restored = || {
            let opened = data_key.open(&of_ann, &engine.value(&of_ann));
            matches!(opened, Some(Record::Membership(own)) if own.until_ms > unix_ms() + 1_000_000)
        };
        for value in [&b""[..], b"rubbish", &[1; 500], &old, &[2; 40]] {
            engine.put(&of_ann, value);
            until(is_restored).await;
        }
        for number in 0..3 * super::WRITES_MAX {
            engine.put(&format!("membership.{number}"), &new);
        }
        until(|| node.store.counters.untrusted.get() > 700).await;
        assert_eq!(node.store.user_groups.len(), 1);
        engine.lose_all();
        until(|| engine.keys().len() >= 2 && node.store.is_connected() && node.store.unwritten() == 0).await;
        drop(node);
        assert!(is_in(&open(&engine, &keys).await, "ann"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotation_of_the_access_keys_loses_nothing() {
        let (engine, old, new) = (MemoryEngine::default(), AccessKey::random(), AccessKey::random());
        let node = open(&engine, &keys(&[&old])).await;
        node.store.keep_first("chat", &join("ann", 600)).await.unwrap();
        drop(node);
        assert!(is_in(&open(&engine, &keys(&[&new, &old])).await, "ann"));
        assert!(is_in(&open(&engine, &keys(&[&new])).await, "ann"));
        let stranger = start(&engine, &keys(&[&old]));
        until(|| stranger.store.reason_closed().is_some_and(|reason| reason.contains("no access key"))).await;
    }
}
