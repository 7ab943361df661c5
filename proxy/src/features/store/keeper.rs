//! Keeper of a store: connects, reads all values, follows each change, and writes missing values.
//!
//! ```text
//!  away ─ open, data key, all values ─► linked ─ each change, missing writes ─┐
//!   ▲                                      └─ cut, silent, another bucket ─────┤
//!   └───────────────── another server, all values again ◄─────────────────────┘
//! ```

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::seal::DataKey;
use super::store_engine::{Change, Connection, Opened, StoreChanges, in_time};
use super::stored_record::{Record, StoreStep};
use super::{Store, StoreAway, StoreLink};
use crate::engine::shard::{Audience, MembershipChange, ShardCommand, Shared};
use crate::features::user_group::MembershipNews;
use crate::ground::clock::unix_seconds;
use crate::ground::condition::{ConditionKind, Finding};

/// Subject of the store's conditions.
const SUBJECT: &str = "store";

/// Key of the data key.
const KEY_NAME: &str = "key";

/// Maximum time without a value while all are read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

const RETRY_INTERVAL: Duration = Duration::from_millis(300);
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// Interval of checks that the server answers and has the same bucket, and of searches for overwritten values.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Delay of a revocation that another node was asked for, which mostly writes it first.
const REVOCATION_DELAY: Duration = Duration::from_secs(2);

/// Maximum number of overwritten keys in a set. With more, all values are compared.
const OVERWRITTEN_MAX: usize = 1000;

/// Time for which a value that can't be trusted is reported.
const UNTRUSTED_TIME: Duration = Duration::from_secs(150);

/// Maximum number of memberships that are written together, and of concurrent writes: callers have the other permits.
const FLUSH_MAX: usize = 1024;
const FLUSHES_MAX: usize = 128;

/// Keeps a store, if there is one, in use for as long as the node runs.
pub(crate) async fn keep(store: Option<Arc<Store>>, shared: Arc<Shared>) {
    if let Some(store) = store {
        tokio::join!(follow_all(&store, &shared), write_missing(&store));
    }
}

async fn follow_all(store: &Store, shared: &Shared) {
    let report = |problem: &str| {
        let finding = Finding::new(ConditionKind::StoreUnreachable, SUBJECT, problem);
        shared.reports.conditions.report(finding, None);
    };
    report(&store.away().problem);
    let mut key = None;
    loop {
        let Err(problem) = StoreSession::run(store, shared, &mut key).await;
        let last = store.link.borrow().as_ref().err().cloned();
        if last.as_ref().is_none_or(|last| last.problem != problem) {
            warn!(problem, "store not reachable: trying again");
        }
        report(&problem);
        let since = last.map_or_else(Instant::now, |last| last.since);
        store.link.send_modify(|link| *link = Err(StoreAway { problem, since }));
        if store.settings.is_optional_at_start && store.admission.is_waiting.swap(false, Ordering::Release) {
            warn!("serving clients without the store: revocations and memberships of former nodes are not known");
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Writes revocations and memberships that the store doesn't have.
async fn write_missing(store: &Store) {
    loop {
        sleep(FLUSH_INTERVAL).await;
        if !store.is_connected() {
            continue;
        }
        let now_s = unix_seconds();
        let revocations = store.revocations().unwritten(now_s, now_s.saturating_sub(REVOCATION_DELAY.as_secs()));
        let memberships = store.user_groups.unwritten(FLUSH_MAX).into_iter().map(Record::Membership);
        let missing = stream::iter(revocations.into_iter().map(Record::Revocation).chain(memberships));
        // A failed write is repeated.
        let write = async |own: Record| drop(store.write(&own, StoreStep::Keep).await);
        missing.for_each_concurrent(FLUSHES_MAX, write).await;
    }
}

/// Use of one connection.
struct StoreSession<'a> {
    store: &'a Store,
    shared: &'a Shared,
    link: Arc<StoreLink>,
    is_complete: bool,
    /// Keys that another client has overwritten.
    overwritten: HashSet<String>,
    untrusted: u64,
}

impl<'a> StoreSession<'a> {
    /// Uses a connection until it fails. `former` is the last data key, for a store that has lost its own.
    async fn run(
        store: &'a Store,
        shared: &'a Shared,
        former: &mut Option<Arc<DataKey>>,
    ) -> Result<Infallible, String> {
        let Opened { connection, server, now_ms } = store.engine.open().await?;
        store.user_groups.set_store_clock(now_ms);
        let said = |problem: String| format!("{server}: {problem}");
        let key = data_key(store, &*connection, former.as_ref()).await.map_err(said)?;
        *former = Some(key.clone());
        store.revocations().mark_unwritten(|_| true);
        store.user_groups.mark_unwritten(|_| true);
        let changes = in_time(connection.changes()).await.map_err(said)?;
        let is_broken = CancellationToken::new();
        let link = Arc::new(StoreLink { connection, key, server: server.clone(), is_broken });
        let (overwritten, untrusted) = (HashSet::new(), store.counters.untrusted.get());
        let mut session = Self { store, shared, link, is_complete: false, overwritten, untrusted };
        session.follow(changes).await.map_err(said)
    }

    async fn follow(&mut self, mut changes: StoreChanges) -> Result<Infallible, String> {
        let (link, mut read_at) = (self.link.clone(), Instant::now());
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.next() => {
                    read_at = Instant::now();
                    let Change { key, value, behind } = change.ok_or("the watch has ended")??;
                    self.store.behind.store(behind, Ordering::Relaxed);
                    self.apply(key, &value)?;
                    if behind == 0 && !self.is_complete {
                        self.complete();
                    }
                }
                () = link.is_broken.cancelled() => return Err("no answer to a write in time".into()),
                _ = checks.tick() => {
                    if !self.is_complete && read_at.elapsed() > READ_TIMEOUT {
                        return Err("reading all values takes too long".into());
                    }
                    in_time(link.connection.check()).await?;
                    self.search();
                }
            }
        }
    }

    fn complete(&mut self) {
        let (store, server) = (self.store, &self.link.server);
        self.is_complete = true;
        store.link.send_modify(|link| *link = Ok(self.link.clone()));
        store.admission.is_waiting.store(false, Ordering::Release);
        self.shared.reports.conditions.clear(ConditionKind::StoreUnreachable, SUBJECT);
        let (revocations, memberships) = (store.revocations().len(unix_seconds()), store.user_groups.len());
        info!(server, prefix = store.settings.prefix, revocations, memberships, "store read");
    }

    fn apply(&mut self, key: String, value: &Bytes) -> Result<(), String> {
        if key == KEY_NAME {
            return match DataKey::open_key(&self.store.settings.prefix, value, &self.store.keys) {
                Some((new, _)) if !new.is(&self.link.key) => Err("it has another data key now".into()),
                Some(_) => Ok(()),
                None if value.is_empty() => Err("its data key was deleted".into()),
                // Not overwritten: this node may not have the newest access key yet.
                None => {
                    self.store.counters.untrusted.increment();
                    Ok(())
                }
            };
        }
        match self.store.opened(&self.link.key, &key, value) {
            Some(record) => self.apply_record(record),
            None if self.overwritten.len() <= OVERWRITTEN_MAX => drop(self.overwritten.insert(key)),
            None => {}
        }
        Ok(())
    }

    fn apply_record(&self, record: Record) {
        match record {
            Record::Revocation(told) => {
                let revocations = self.store.revocations();
                if let Err(problem) = revocations.revoke(&told, unix_seconds()) {
                    revocations.refused.increment();
                    if self.shared.limits.may_log(self.shared.uptime()) {
                        warn!(%problem, "a revocation of the store can't be kept");
                    }
                }
                revocations.note_stored(&told);
            }
            Record::Membership(stored) => {
                let applied = self.store.user_groups.apply(&stored);
                let applied = applied.inspect_err(|problem| self.shared.count_refused_membership(&stored.hub, problem));
                let change = match applied.unwrap_or(MembershipNews::Nothing) {
                    MembershipNews::Begun => MembershipChange::Join(stored.group),
                    MembershipNews::Ended => MembershipChange::Leave(stored.group),
                    MembershipNews::Nothing => return,
                };
                let Some(hub) = self.shared.hubs.keyed(&stored.hub).map(|hub| hub.index()) else { return };
                for shard in self.shared.shards() {
                    let to = Audience::Users(vec![stored.user.clone()]).into();
                    shard.order(ShardCommand::ChangeGroups { hub, to, change: change.clone(), ack: None });
                }
            }
        }
    }

    /// Looks for own values that others have overwritten, and reports values that can't be trusted.
    fn search(&mut self) {
        let untrusted = self.store.counters.untrusted.get();
        if untrusted > self.untrusted {
            let detail = format!("{} values of other clients, {untrusted} since the start", untrusted - self.untrusted);
            let finding = Finding::new(ConditionKind::StoreUntrusted, SUBJECT, detail);
            self.shared.reports.conditions.report(finding, Some(UNTRUSTED_TIME));
            self.untrusted = untrusted;
        }
        let overwritten = std::mem::take(&mut self.overwritten);
        if overwritten.is_empty() {
            return;
        }
        let is_all = overwritten.len() > OVERWRITTEN_MAX;
        let key = &self.link.key;
        let is_lost = |record: &Record| is_all || overwritten.contains(&key.key_of(record));
        self.store.revocations().mark_unwritten(|told| is_lost(&Record::Revocation(told.clone())));
        self.store.user_groups.mark_unwritten(|own| is_lost(&Record::Membership(own.clone())));
    }
}

/// Opens the store's data key, or makes one.
async fn data_key(
    store: &Store,
    connection: &dyn Connection,
    former: Option<&Arc<DataKey>>,
) -> Result<Arc<DataKey>, String> {
    let prefix = &store.settings.prefix;
    // Of nodes that start at the same time, one makes the key. Another one seals it again after a rotation.
    for _ in 0..10 {
        let current = in_time(connection.get(KEY_NAME)).await?;
        let key = match (&current.value, former) {
            (Some(sealed), _) => match DataKey::open_key(prefix, sealed, &store.keys) {
                Some((key, true)) => return Ok(Arc::new(key)),
                Some((key, false)) => Arc::new(key),
                None => {
                    return Err("no access key of this node opens the data key of the store: give the node also the \
                                former access key, or another --nats-prefix"
                        .into());
                }
            },
            (None, Some(former)) => former.clone(),
            (None, None) => Arc::new(DataKey::random(prefix).map_err(|error| error.to_string())?),
        };
        // Whether written or not, the next reading shows the key in force.
        in_time(connection.write(KEY_NAME, key.seal_key(&store.keys), current.revision, None)).await?;
    }
    Err("the data key of the store changes all the time".into())
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::fleet::SharedRevocation;
    use trunkline_protocol::key::{AccessKey, AccessKeys};
    use trunkline_protocol::service::{ServiceMessage, UserGroupChange};

    use super::super::WRITES_MAX;
    use super::super::memory_engine::MemoryEngine;
    use super::*;
    use crate::engine::shard::{KeptMemberships, ShardSender};
    use crate::features::admission::Admission;
    use crate::features::user_group::UserGroups;
    use crate::ground::auth::AccessSettings;
    use crate::ground::clock::unix_ms;
    use crate::ground::config::Settings;
    use crate::ground::net::connector::Connector;

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
        let store = Store::in_memory(engine, keys, (&admission, &user_groups));
        let shared = Shared::alone(settings, vec![ShardSender::new().0]);
        Node { keeper: tokio::spawn(keep(Some(store.clone()), shared)), store }
    }

    async fn until(is_so: impl Fn() -> bool) {
        // Tokens have times of the system's clock, which is not paused.
        let begun = std::time::Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never happens");
            // sleep: the store runs in other tasks, with paused time
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
        !node.store.user_groups.groups_of("chat", user).is_empty()
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
        drop(one.store.user_groups.note_change("chat", &join("ben", 600)));
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
        for number in 0..3 * WRITES_MAX {
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
