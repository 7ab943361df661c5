//! Keeper of a store: connects, reads all that is stored, follows each change, and writes what is missing.
//!
//! ```text
//!  away ─ open, data key, all values ─► linked ─ each change, writes of what is missing ─┐
//!   ▲                                      └─ cut, silent, another bucket: problem ──────┤
//!   └───────────────── another server, all values again ◄───────────────────────────────┘
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

use super::engine::{Change, Changes, Connection, Opened, in_time};
use super::record::{Record, Step};
use super::seal::DataKey;
use super::{Store, StoreAway, StoreLink};
use crate::clock::unix_seconds;
use crate::condition::{ConditionKind, Finding};
use crate::shard::{Audience, MembershipChange, ShardCommand, Shared};
use crate::user_group::MembershipNews;

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

/// Maximum number of overwritten keys that are told apart. With more, all values are compared.
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
        let Err(problem) = Session::run(store, shared, &mut key).await;
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
        // One that fails is tried again.
        let write = async |own: Record| drop(store.write(&own, Step::Keep).await);
        missing.for_each_concurrent(FLUSHES_MAX, write).await;
    }
}

/// Use of one connection.
struct Session<'a> {
    store: &'a Store,
    shared: &'a Shared,
    link: Arc<StoreLink>,
    is_complete: bool,
    /// Keys that another client has overwritten.
    overwritten: HashSet<String>,
    untrusted: u64,
}

impl<'a> Session<'a> {
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

    async fn follow(&mut self, mut changes: Changes) -> Result<Infallible, String> {
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

    /// Looks for own values among those that others have overwritten, and reports values that can't be trusted.
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
