//! Keeper of a store: connects, reads all that is stored, follows each change, and writes what is missing.
//!
//! ```text
//!  away ─ open, data key, all values ─► linked ─ each change, writes of what is missing ─┐
//!   ▲                                      └─ cut, silent, another bucket: problem ──────┤
//!   └───────────────── another server, all values again ◄───────────────────────────────┘
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trunkline_protocol::fleet::SharedRevocation;

use super::engine::{Change, Connection, Opened};
use super::record::{Record, Step};
use super::seal::{DataKey, SealError};
use super::{ANSWER_TIMEOUT, Store, StoreLink};
use crate::clock::{unix_ms, unix_seconds};
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

/// Interval of checks that the server answers and has the same bucket.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Delay of a revocation that another node was asked for, which mostly writes it first.
const REVOCATION_DELAY: Duration = Duration::from_secs(2);

/// Interval at which overwritten values are looked for.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of overwritten keys that are told apart. With more, all values are compared.
const OVERWRITTEN_MAX: usize = 1000;

/// Time for which a value that can't be trusted is reported.
const UNTRUSTED_TIME: Duration = Duration::from_secs(150);

/// Maximum number of memberships that are written between two ticks.
const FLUSH_MAX: usize = 1024;

/// Tolerated difference of the clocks, in milliseconds: as between nodes.
const CLOCK_SKEW_MS: u64 = 300_000;

/// Keeps a store in use for as long as the node runs.
pub(crate) async fn keep(store: Arc<Store>, shared: Arc<Shared>) {
    let report = |problem: &str| {
        let finding = Finding::new(ConditionKind::StoreUnreachable, SUBJECT, problem);
        shared.reports.conditions.report(finding, None);
    };
    report(&store.problem().0);
    loop {
        let Err(problem) = Session::run(&store, &shared).await;
        let was_linked = store.link.send_replace(None).is_some();
        let is_news = {
            let mut last = store.problem.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let is_news = was_linked || last.text != problem;
            if was_linked {
                last.since = Instant::now();
            }
            last.text.clone_from(&problem);
            is_news
        };
        if is_news {
            warn!(problem, "store not reachable: trying again");
        }
        report(&problem);
        if store.is_optional_at_start && store.reason_closed().is_some() {
            warn!("serving clients without the store: revocations and memberships of former nodes are not known");
            store.open();
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Use of one connection.
struct Session<'a> {
    store: &'a Arc<Store>,
    shared: &'a Arc<Shared>,
    link: Arc<StoreLink>,
    is_complete: bool,
    /// Keys that another client has overwritten.
    overwritten: HashSet<String>,
    untrusted: u64,
}

enum Never {}

impl<'a> Session<'a> {
    /// Uses a connection until it fails.
    async fn run(store: &'a Arc<Store>, shared: &'a Arc<Shared>) -> Result<Never, String> {
        let Opened { connection, server, now_ms } = store.engine.open().await?;
        let said = |problem: String| format!("{server}: {problem}");
        check_clock(now_ms).map_err(said)?;
        store.user_groups.set_store_clock(now_ms);
        let key = data_key(store, &connection).await.map_err(said)?;
        *store.former_key() = Some(key.clone());
        let is_broken = CancellationToken::new();
        let link = Arc::new(StoreLink { connection, key, server: server.clone(), is_broken });
        let (overwritten, untrusted) = (HashSet::new(), store.counters.untrusted.get());
        let mut session = Self { store, shared, link, is_complete: false, overwritten, untrusted };
        session.follow().await.map_err(said)
    }

    async fn follow(&mut self) -> Result<Never, String> {
        let link = self.link.clone();
        self.store.revocations().mark_unwritten(|_| true);
        self.store.user_groups.mark_unwritten(|_| true);
        let mut changes =
            timeout(ANSWER_TIMEOUT, link.connection.changes()).await.map_err(|_| "no answer in time")??;
        let [mut flushes, mut checks, mut searches] = [FLUSH_INTERVAL, CHECK_INTERVAL, SEARCH_INTERVAL].map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let (mut writes, mut read_at) = (FuturesUnordered::new(), Instant::now());
        loop {
            tokio::select! {
                change = changes.next() => {
                    read_at = Instant::now();
                    match change? {
                        Change::Value { key, value, behind } => {
                            self.store.behind.store(behind, Ordering::Relaxed);
                            self.apply(key, &value)?;
                        }
                        Change::Complete => self.complete(),
                    }
                }
                () = link.is_broken.cancelled() => return Err("no answer to a write in time".into()),
                Some(()) = writes.next() => {}
                _ = flushes.tick(), if self.is_complete && writes.is_empty() => {
                    let store = self.store.clone();
                    writes.push(async move { flush(&store).await });
                }
                _ = checks.tick() => {
                    if !self.is_complete && read_at.elapsed() > READ_TIMEOUT {
                        return Err("reading all values takes too long".into());
                    }
                    timeout(ANSWER_TIMEOUT, link.connection.check()).await.map_err(|_| "no answer in time")??;
                }
                _ = searches.tick(), if self.is_complete => self.search(),
            }
        }
    }

    fn complete(&mut self) {
        let (store, server) = (self.store, &self.link.server);
        self.is_complete = true;
        store.link.send_replace(Some(self.link.clone()));
        store.open();
        self.shared.reports.conditions.clear(ConditionKind::StoreUnreachable, SUBJECT);
        let (revocations, memberships) = (store.revocations().len(unix_seconds()), store.user_groups.len());
        info!(server, prefix = store.prefix, revocations, memberships, "store read");
    }

    fn apply(&mut self, key: String, value: &Bytes) -> Result<(), String> {
        if key == KEY_NAME {
            return match DataKey::open_key(&self.store.prefix, value, &self.store.keys) {
                Ok((new, _)) if !new.is(&self.link.key) => Err("it has another data key now".into()),
                Ok(_) => Ok(()),
                Err(_) if value.is_empty() => Err("its data key was deleted".into()),
                // Not overwritten: this node may not have the newest access key yet.
                Err(_) => {
                    self.store.counters.untrusted.increment();
                    Ok(())
                }
            };
        }
        match self.store.opened(&self.link.key, &key, value) {
            Ok(record) => self.apply_record(record),
            Err(SealError::Untrusted | SealError::LaterVersion) if self.overwritten.len() <= OVERWRITTEN_MAX => {
                self.overwritten.insert(key);
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn apply_record(&self, record: Record) {
        match record {
            Record::Revocation { user, audience, app, issued_before_s, kept_until_s } => {
                let closed_ms = 0;
                let told = SharedRevocation { user, audience, app, issued_before_s, kept_until_s, closed_ms };
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
        self.store.revocations().mark_unwritten(|told| {
            is_lost(&Record::revocation(told.user.clone(), told.audience.clone(), told.app.clone(), 0, 0))
        });
        self.store.user_groups.mark_unwritten(|own| is_lost(&Record::Membership(own.clone())));
    }
}

/// Writes revocations and memberships that the store doesn't have.
async fn flush(store: &Arc<Store>) {
    let due_s = unix_seconds().saturating_sub(REVOCATION_DELAY.as_secs());
    let mut revocations = FuturesUnordered::new();
    for told in store.revocations().unwritten(unix_seconds(), due_s) {
        revocations.push(async move { store.keep_revocation(&told).await });
    }
    let mut memberships = FuturesUnordered::new();
    for own in store.user_groups.unwritten(FLUSH_MAX) {
        memberships.push(async move { store.keep_membership(own, &Step::Keep).await });
    }
    while revocations.next().await.is_some() {}
    while memberships.next().await.is_some() {}
}

/// Refuses a clock behind the store's: values that have ended would hold again.
pub(super) fn check_clock(store_now_ms: u64) -> Result<(), String> {
    let behind_ms = store_now_ms.saturating_sub(unix_ms());
    if behind_ms <= CLOCK_SKEW_MS {
        return Ok(());
    }
    Err(format!("the clock of this machine is {} s behind the server's: synchronise both (NTP)", behind_ms / 1000))
}

/// Opens the store's data key, or makes one.
async fn data_key(store: &Store, connection: &Connection) -> Result<Arc<DataKey>, String> {
    // Of nodes that start at the same time, one makes the key. Another one seals it again after a rotation.
    for _ in 0..10 {
        let current = timeout(ANSWER_TIMEOUT, connection.get(KEY_NAME)).await.map_err(|_| "no answer in time")??;
        let (key, is_done) = match &current.value {
            Some(sealed) => {
                let opened = DataKey::open_key(&store.prefix, sealed, &store.keys).map_err(|_| {
                    "no access key of this node opens the data key of the store: give the node also the former access \
                     key, or another --nats-prefix"
                })?;
                (Arc::new(opened.0), opened.1)
            }
            None => {
                let former = store.former_key().clone();
                let made = former.map_or_else(|| DataKey::random(&store.prefix).map(Arc::new), Ok);
                (made.map_err(|error| error.to_string())?, false)
            }
        };
        if is_done {
            return Ok(key);
        }
        let sealed = key.seal_key(&store.keys);
        let write = connection.write(KEY_NAME, sealed, current.revision, None);
        // Whether written or not, the next reading shows the key in force.
        let _is_written = timeout(ANSWER_TIMEOUT, write).await.map_err(|_| "no answer in time")??;
    }
    Err("the data key of the store changes all the time".into())
}
