//! Rates of apps and of methods.
//!
//! The rate of an app is messages and bytes per second of all its app servers and REST callers at this node.
//! Above its rate, an app's links are read more slowly, one after the other, and its REST requests get 429.
//!
//! Calls by method and user have token buckets in tables shared by all shards. Full buckets are evicted, so only
//! callers of the last second are stored.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};

use super::throttle::{BURST, Quota, TooFast, moment, nanos, pay};
use crate::ground::auth::Signer;
use crate::ground::bounded::Partitions;
use crate::ground::config::LinkSettings;

/// Maximum debt, far below the timeout of a link: a frame with more bytes than that is charged as much.
const DEBT_MAX: Duration = Duration::from_secs(10);

/// App that work counts for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum AppHolder {
    /// App with a key.
    Key(Signer),
    /// A hub without a key of its own.
    Hub(Box<str>),
}

/// Rates of apps that have used them recently.
#[derive(Debug)]
pub(crate) struct AppRates {
    messages: Option<NonZeroU32>,
    bytes: Option<NonZeroU32>,
    started_at: Instant,
    by_app: Mutex<HashMap<AppHolder, Arc<AppRate>>>,
}

#[derive(Debug)]
pub(crate) struct AppRate {
    label: Box<str>,
    /// Maximum number of messages to read in one go, so that a debt lasts little more than a second.
    pub(crate) messages_max: usize,
    started_at: Instant,
    quota: Mutex<Quota>,
    /// Held while a link reads a batch, so that each batch is paid before the next one begins.
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// Permission to read a batch, and whether the link has waited for it.
#[derive(Debug)]
pub(crate) struct RateTurn {
    pub has_waited: bool,
    _gate: OwnedMutexGuard<()>,
}

impl AppRates {
    pub(super) fn new(settings: &LinkSettings) -> Self {
        let LinkSettings { app_messages_per_second: messages, app_bytes_per_second: bytes, .. } = *settings;
        Self { messages, bytes, started_at: Instant::now(), by_app: Mutex::default() }
    }

    /// Returns the rate of an app; `None` without limits.
    pub(crate) fn of(&self, app: impl FnOnce() -> AppHolder) -> Option<Arc<AppRate>> {
        let quota = *Quota::new(self.messages, self.bytes)?;
        let (app, mut rates) = (app(), self.by_app.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(rate) = rates.get(&app) {
            return Some(rate.clone());
        }
        rates.retain(|_, rate| Arc::strong_count(rate) > 1 || !rate.debt().is_zero());
        let rate = Arc::new(AppRate {
            label: app.label().into(),
            messages_max: self.messages.map_or(usize::MAX, |messages| messages.get() as usize),
            started_at: self.started_at,
            quota: Mutex::new(quota),
            gate: Arc::default(),
        });
        rates.insert(app, rate.clone());
        Some(rate)
    }
}

impl AppHolder {
    fn label(&self) -> &str {
        match self {
            Self::Key(signer) => signer.label(),
            Self::Hub(hub) => hub,
        }
    }
}

impl AppRate {
    fn quota(&self) -> MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// App, as a label of metrics.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn charge(&self, messages: usize, bytes: usize) -> Duration {
        let debt = self.quota().charge_within(DEBT_MAX, self.started_at.elapsed(), messages as u64, bytes);
        debt.messages.max(debt.bytes)
    }

    fn debt(&self) -> Duration {
        self.charge(0, 0)
    }

    /// Waits until earlier work is paid. The caller charges the batch before it drops the turn.
    pub(crate) async fn begin(&self) -> RateTurn {
        let gate = self.gate.clone().lock_owned().await;
        let mut has_waited = false;
        loop {
            let debt = self.debt();
            if debt.is_zero() {
                return RateTurn { has_waited, _gate: gate };
            }
            has_waited = true;
            sleep(debt).await;
        }
    }

    /// Charges a request, unless earlier work is not paid yet.
    ///
    /// # Errors
    /// Returns the time until the app may send again.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), TooFast> {
        let retry_after = self.debt();
        if !retry_after.is_zero() {
            return Err(TooFast { retry_after });
        }
        self.charge(1, bytes);
        Ok(())
    }
}

/// Maximum number of buckets in a partition; 262 144 in all, about 8 MiB.
const BUCKETS_PER_PART_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RatedCall<'a> {
    pub rule: &'a str,
    pub method: &'a str,
    /// User, or connection if there is no user.
    pub caller: RatedCaller<'a>,
}

/// Caller of a method: a user over all their connections, or a connection without a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RatedCaller<'a> {
    User(&'a str),
    Connection(&'a str),
}

/// Rate limits of calls by method and user: token buckets in tables shared by all shards.
#[derive(Debug, Default)]
pub(crate) struct MethodRates(Partitions<RatePart>);

#[derive(Debug, Default)]
struct RatePart {
    /// Time when the consumed tokens are refilled, by hash of the call.
    paid_at: HashMap<u64, u64>,
    swept_at: u64,
}

impl MethodRates {
    /// Takes a token if the call is within its rate. If the table is full, callers without a bucket are refused, to
    /// protect the app server.
    #[must_use]
    pub(crate) fn take(&self, hub: &str, call: RatedCall<'_>, per_second: NonZeroU32, now: Duration) -> bool {
        let hash = self.0.hash(&(hub, call));
        self.0.of_hash(hash).take(hash, per_second, moment(now))
    }
}

impl RatePart {
    fn take(&mut self, hash: u64, per_second: NonZeroU32, now: u64) -> bool {
        if self.paid_at.len() >= BUCKETS_PER_PART_MAX && !self.paid_at.contains_key(&hash) {
            self.sweep(now);
            if self.paid_at.len() >= BUCKETS_PER_PART_MAX {
                return false;
            }
        }
        let paid_at = self.paid_at.entry(hash).or_default();
        let next = pay(*paid_at, now, 1, per_second);
        let is_within = next <= now;
        if is_within {
            *paid_at = next;
        }
        is_within
    }

    /// Evicts full buckets, at most once per burst period to limit the cost under load.
    fn sweep(&mut self, now: u64) {
        let full_before = now.saturating_sub(nanos(BURST));
        if self.swept_at <= full_before {
            self.swept_at = now;
            self.paid_at.retain(|_, paid_at| *paid_at > full_before);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::yield_now;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rates(messages: u32, bytes: u32) -> AppRates {
        let (app_messages_per_second, app_bytes_per_second) = (NonZeroU32::new(messages), NonZeroU32::new(bytes));
        AppRates::new(&LinkSettings { app_messages_per_second, app_bytes_per_second, ..LinkSettings::DEFAULT })
    }

    fn shop() -> AppHolder {
        AppHolder::Key(Signer::App("shop".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_waits_for_its_own_rate_only() {
        let rates = rates(10, 0);
        let rate = rates.of(shop).unwrap();
        rate.charge(10, 1_000_000);
        assert!(!rate.begin().await.has_waited, "a burst of a second passes");
        rate.charge(5, 0);
        assert!(rate.take(1).is_err() && rate.begin().now_or_never().is_none());
        assert!(rates.of(|| AppHolder::Hub("chat".into())).unwrap().take(1).is_ok());
        advance(SECOND / 2).await;
        assert!(!rate.begin().await.has_waited && rate.take(1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn all_links_of_an_app_share_its_rate() {
        let rate = rates(0, 1_000).of(shop).unwrap();
        let begun_at = Instant::now();
        let link = async || {
            for _ in 0..5 {
                let _turn = rate.begin().await;
                // Other links want to begin before this one pays.
                yield_now().await;
                rate.charge(1, 9_000);
            }
        };
        tokio::join!(link(), link(), link(), link());
        assert_eq!(begun_at.elapsed().as_secs(), 170, "20 batches of 9 s, less the burst and the last one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_bounded() {
        let rate = rates(0, 1_000).of(shop).unwrap();
        rate.charge(1, 1_000_000);
        assert_eq!(rate.take(1).unwrap_err().retry_after, DEBT_MAX);
        let begun_at = Instant::now();
        assert!(rate.begin().await.has_waited);
        assert_eq!(begun_at.elapsed(), DEBT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_until_its_debt_is_paid() {
        let rates = rates(10, 0);
        rates.of(shop).unwrap().charge(20, 0);
        let held = || rates.by_app.lock().unwrap().len();
        drop(rates.of(|| AppHolder::Hub("chat".into())));
        assert!(held() == 2 && rates.of(shop).unwrap().take(1).is_err());
        advance(2 * SECOND).await;
        drop(rates.of(|| AppHolder::Hub("news".into())));
        assert_eq!(held(), 1);
    }

    #[tokio::test]
    async fn without_limits_there_is_no_rate() {
        assert!(rates(0, 0).of(|| unreachable!()).is_none());
    }

    fn take(rates: &MethodRates, method: &str, caller: RatedCaller<'_>, now: Duration) -> bool {
        rates.take("chat", RatedCall { rule: "1", method, caller }, NonZeroU32::new(2).unwrap(), now)
    }

    #[test]
    fn each_method_and_caller_has_a_rate_of_its_own() {
        let rates = MethodRates::default();
        let (ann, ben) = (RatedCaller::User("ann"), RatedCaller::User("ben"));
        assert!(take(&rates, "Say", ann, SECOND) && take(&rates, "Say", ann, SECOND));
        assert!(!take(&rates, "Say", ann, SECOND));
        assert!(take(&rates, "Say", ben, SECOND) && take(&rates, "Ask", ann, SECOND));
        assert!(take(&rates, "Say", RatedCaller::Connection("ann"), SECOND), "a connection is no user of that name");
        assert!(take(&rates, "Say", ann, SECOND + SECOND / 2), "a refusal costs nothing");
        assert!(!take(&rates, "Say", ann, SECOND + SECOND / 2));
    }

    #[test]
    fn callers_beyond_the_bound_are_refused_until_others_have_been_quiet_for_a_second() {
        let mut part = RatePart::default();
        let rate = NonZeroU32::MIN;
        let now = moment(SECOND);
        for hash in 0..BUCKETS_PER_PART_MAX as u64 {
            assert!(part.take(hash, rate, now));
        }
        assert!(!part.take(u64::MAX, rate, now));
        let later = moment(SECOND * 2);
        assert!(part.take(0, rate, later));
        assert!(part.take(u64::MAX, rate, moment(SECOND * 2)), "what is full again is forgotten");
        assert!(part.paid_at.len() <= 2);
    }
}
