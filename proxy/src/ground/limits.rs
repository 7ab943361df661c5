//! Limits of a node: counters of sockets, connections and negotiates. No I/O: time is passed in as an argument.
//!
//! Limits are kept off the delivery path. Connecting touches an atomic or one of several small tables; messages are
//! counted only if they have a limit.

mod address_key;
mod answer_budget;
mod app_rate;
mod auth_throttle;
mod head_budget;
mod hop_limit;
mod link_permit;
mod pending_negotiation;
mod relay_limit;
mod rest_permit;
mod signer_share;
mod span_table;
mod throttle;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trunkline_process::LogLimit;
use trunkline_protocol::limits::{PENDING_PIPES_MAX, PENDING_PIPES_PER_ADDRESS_MAX};

use crate::ground::auth::Signer;
use crate::ground::bounded::{Budget, Permit, Permits};
use crate::ground::config::{FrontendLimits, Settings};
use crate::ground::metrics::PermitRefusals;
use crate::ground::net::descriptor::client_files_max;

pub(crate) use address_key::{AddressKey, AddressPermit};
pub(crate) use answer_budget::{AnswerBudget, LinkAnswers, QuestionRefusal};
pub(crate) use app_rate::{AppHolder, AppRate, AppRates, MethodRates, RateTurn, RatedCall, RatedCaller};
pub(crate) use auth_throttle::AuthThrottle;
pub(crate) use head_budget::{HeadAdmission, HeadBudget, HeadHolder, HeadWeight};
pub(crate) use hop_limit::{HOPS_PER_CONNECTION_MAX, HOPS_PER_OWNER_MAX, HopLimits, HopPermit};
pub(crate) use link_permit::{LinkLimit, LinkPermit, LinkRefusal};
pub(crate) use pending_negotiation::PendingNegotiations;
pub(crate) use relay_limit::{FullUpstream, RelayConnection, RelayLimit, RelayPermit, RelayProgress, RelayRefusal};
pub(crate) use rest_permit::{RestPermit, RestPermits, RestShare};
pub(crate) use signer_share::{IDLE_TIMEOUT, SignerShare, TableFull};
pub(crate) use throttle::{Bucket, Quota, TooFast};

/// Maximum rate of log lines caused by clients. A client in a reconnect loop could fill a disk. Counters and the
/// connection history cover all clients.
const LOG_LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Maximum rate of log lines about client mistakes. Any untrusted client can cause them, so they must not suppress
/// others.
const MISTAKE_LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(1).unwrap();

/// Maximum rate of log lines about lost links and app servers that dial in. Conditions name lost app servers, too.
const LINK_LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Maximum rate of immediate refusals of lost connections. A refused client negotiates again without a wait, so after a
/// node failure all its clients would reconnect in the same moment.
const REFUSED_RETURNS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Maximum delay of such a refusal. Socket limits bound the number of waiting clients.
const REFUSED_RETURN_WAIT: Duration = Duration::from_secs(5);

/// Permit of a client connection, held with and without a socket.
#[derive(Debug)]
pub(crate) struct ClientPermit {
    pub _address: Option<AddressPermit>,
    pub _app: Option<Permit<Signer>>,
}

#[derive(Debug)]
pub(crate) struct LimitCounters {
    pub connects: Option<Bucket>,
    /// Sockets without a client connection (so far), by address.
    pub sockets: Option<Permits<AddressKey>>,
    pub clients: Option<Permits<AddressKey>>,
    /// Client connections by app, if apps have keys.
    pub connections: Permits<Signer>,
    /// Negotiates without a connection so far, by address.
    pub pending: Option<PendingNegotiations>,
    /// Pipes created by a POST before the first GET.
    pub pipes: Permits<AddressKey>,
    pub heads: HeadBudget,
    pub relays: Arc<RelayLimit>,
    pub links: LinkLimit,
    pub app_rates: AppRates,
    pub answers: AnswerBudget,
    pub refusals: PermitRefusals,
    /// Bytes of names of groups with members, by the index of their hub.
    pub group_names: Permits<usize>,
    pub group_name_sums: GroupNameSums,
    pub methods: MethodRates,
    log_lines: Bucket,
    mistake_lines: Bucket,
    link_lines: Bucket,
    pub setup_faults: SetupFaults,
    refused_returns: Bucket,
    /// Failed hellos of channels, by address.
    pub failed_hellos: AuthThrottle,
    /// Wrong tokens at the admin port, by address.
    pub wrong_tokens: Arc<AuthThrottle>,
    /// Requests forwarded to other nodes, by client address.
    pub hop_clients: Option<Permits<AddressKey>>,
    /// Requests forwarded to other nodes, by owner and connection.
    pub hops: HopLimits,
    /// Listeners that may still accept a socket.
    pub listeners: Arc<Budget>,
    /// Sockets that serve requests. Sockets of client connections are counted elsewhere.
    pub open: Arc<Budget>,
}

/// Maximum number of client connections, of which apps have shares: the limit of the node, or fewer open files.
fn connections_max(limits: &FrontendLimits) -> usize {
    let most = limits.connections.map_or(u64::MAX, |most| most.get().into());
    usize::try_from(most.min(client_files_max().unwrap_or(u64::MAX))).unwrap_or(usize::MAX)
}

impl LimitCounters {
    pub(crate) fn new(settings: &Settings) -> Self {
        let limits = &settings.limits;
        let addresses = |most: Option<NonZeroU32>| most.map(|most| Permits::new(usize::MAX, most.get() as usize));
        let given = |most: Option<u32>| most.and_then(NonZeroU32::new);
        Self {
            connects: limits.connects_per_second.map(Bucket::new),
            sockets: addresses(limits.sockets_per_address),
            clients: addresses(given(limits.connections_per_address)),
            connections: Permits::new(connections_max(limits), usize::MAX),
            pending: given(limits.pending_per_address).map(PendingNegotiations::new),
            pipes: Permits::new(PENDING_PIPES_MAX, PENDING_PIPES_PER_ADDRESS_MAX),
            heads: HeadBudget::new(limits.heads_total_bytes),
            relays: RelayLimit::new(&settings.relay),
            links: LinkLimit::new(&settings.links),
            app_rates: AppRates::new(&settings.links),
            answers: AnswerBudget::default(),
            refusals: PermitRefusals::default(),
            group_names: Permits::new(settings.groups.names_total_bytes, usize::MAX),
            group_name_sums: GroupNameSums::default(),
            methods: MethodRates::default(),
            log_lines: Bucket::new(LOG_LINES_PER_SECOND),
            mistake_lines: Bucket::new(MISTAKE_LINES_PER_SECOND),
            link_lines: Bucket::new(LINK_LINES_PER_SECOND),
            setup_faults: SetupFaults::default(),
            refused_returns: Bucket::new(REFUSED_RETURNS_PER_SECOND),
            failed_hellos: AuthThrottle::default(),
            wrong_tokens: Arc::default(),
            hop_clients: addresses(given(limits.connections_per_address)),
            hops: HopLimits::default(),
            listeners: Arc::new(Budget::new(usize::MAX)),
            open: Arc::new(Budget::new(usize::MAX)),
        }
    }

    /// Drops expired entries of clients that no longer send requests.
    pub(crate) fn sweep(&self, now: Duration) {
        self.pending.iter().for_each(|pending| pending.sweep(now));
        self.failed_hellos.sweep(now);
        self.wrong_tokens.sweep(now);
    }

    #[must_use]
    pub(crate) fn may_log(&self, now: Duration) -> bool {
        self.log_lines.take(now, Duration::ZERO).is_ok()
    }

    #[must_use]
    pub(crate) fn may_log_mistake(&self, now: Duration) -> bool {
        self.mistake_lines.take(now, Duration::ZERO).is_ok()
    }

    #[must_use]
    pub(crate) fn may_log_link(&self, now: Duration) -> bool {
        self.link_lines.take(now, Duration::ZERO).is_ok()
    }

    /// Delay before refusing a client that returns to a lost connection.
    #[must_use]
    pub(crate) fn refused_return_wait(&self, now: Duration) -> Duration {
        self.refused_returns.take(now, REFUSED_RETURN_WAIT).unwrap_or(REFUSED_RETURN_WAIT)
    }
}

/// Interval between sums. With hundreds of hubs and app keys a sum takes some milliseconds.
const SUM_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of names of groups by app: the last sum, and the time until which it is used. Hubs are counted separately, and
/// finding a hub's app takes a pass over all app keys, so one sum serves all joins of a short interval.
#[derive(Debug, Default)]
pub(crate) struct GroupNameSums(Mutex<(Duration, HashMap<Signer, usize>)>);

impl GroupNameSums {
    /// Bytes of an app. `sum` returns the bytes of all apps; it is called if the last sum is too old.
    pub(crate) fn of(&self, app: &Signer, now: Duration, sum: impl FnOnce() -> HashMap<Signer, usize>) -> usize {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.0 <= now {
            *sums = (now.saturating_add(SUM_INTERVAL), sum());
        }
        sums.1.get(app).copied().unwrap_or_default()
    }
}

const INTERVAL: Duration = Duration::from_secs(60);

/// Misconfiguration in front of a node, such as of a load balancer. Every client triggers it, so each is logged once a
/// minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetupFault {
    /// `Origin` of the page and `Host` of its request differ.
    Host,
    /// A header of a WebSocket upgrade was removed.
    Upgrade,
    /// HTTP/2 arrives without TLS.
    PlainHttp2,
}

#[derive(Debug)]
pub(crate) struct SetupFaults([LogLimit; 3]);

impl Default for SetupFaults {
    fn default() -> Self {
        Self(std::array::from_fn(|_| LogLimit::new(1, INTERVAL)))
    }
}

impl SetupFaults {
    pub(crate) fn of(&self, fault: SetupFault) -> &LogLimit {
        let Self([host, upgrade, http2]) = self;
        match fault {
            SetupFault::Host => host,
            SetupFault::Upgrade => upgrade,
            SetupFault::PlainHttp2 => http2,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn one_sum_serves_all_joins_of_an_interval() {
        let (sums, shop) = (GroupNameSums::default(), Signer::App("shop".into()));
        let of = |now: Duration, bytes: usize| sums.of(&shop, now, || HashMap::from([(shop.clone(), bytes)]));
        assert_eq!((of(Duration::ZERO, 1), of(SUM_INTERVAL / 2, 2), of(SUM_INTERVAL, 3)), (1, 1, 3));
        assert_eq!(sums.of(&Signer::Fleet, SUM_INTERVAL, HashMap::new), 0);
    }

    #[test]
    fn each_fault_has_one_line_a_minute() {
        let (faults, start) = (SetupFaults::default(), Instant::now());
        let pass = |fault, at| faults.of(fault).take_line_at(at).map(|permit| permit.left_out);
        assert_eq!((pass(SetupFault::Host, start), pass(SetupFault::Upgrade, start)), (Some(None), Some(None)));
        assert_eq!((pass(SetupFault::Host, start), pass(SetupFault::Host, start)), (None, None));
        assert_eq!(pass(SetupFault::Host, start + INTERVAL), Some(Some(2)));
    }
}
