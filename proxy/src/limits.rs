//! Limits of a node: counters of sockets, connections and negotiates. No I/O: time is passed in as an argument.
//!
//! Limits are kept off the delivery path. Connecting touches an atomic or one of several small tables; messages are
//! counted only if they have a limit.

mod address_key;
mod answer_budget;
mod app_rate;
mod auth_throttle;
mod group_name_sum;
mod head_budget;
mod hop_limit;
mod link_permit;
mod log_throttle;
mod method_rate;
mod pending_negotiation;
mod relay_limit;
mod rest_permit;
mod setup_fault;
mod signer_share;
mod throttle;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use trunkline_protocol::limits::{PENDING_PIPES_MAX, PENDING_PIPES_PER_ADDRESS_MAX};

pub(crate) use address_key::{AddressKey, AddressPermit};
pub(crate) use answer_budget::{AnswerBudget, LinkAnswers, QuestionRefusal};
pub(crate) use app_rate::{AppHolder, AppRate, AppRates, RateTurn};
pub(crate) use auth_throttle::AuthThrottle;
pub(crate) use group_name_sum::GroupNameSums;
pub(crate) use head_budget::{HeadAdmission, HeadBudget, HeadHolder, HeadWeight};
pub(crate) use hop_limit::{HOPS_PER_CONNECTION_MAX, HOPS_PER_OWNER_MAX, HopLimits, HopPermit};
pub(crate) use link_permit::{LinkLimit, LinkPermit, LinkRefusal};
pub(crate) use log_throttle::LogThrottle;
pub(crate) use method_rate::{MethodRates, RatedCall, RatedCaller};
pub(crate) use pending_negotiation::PendingNegotiations;
pub(crate) use relay_limit::{FullUpstream, RelayConnection, RelayLimit, RelayPermit, RelayProgress, RelayRefusal};
pub(crate) use rest_permit::{RestPermit, RestPermits, RestShare};
pub(crate) use setup_fault::{SetupFault, SetupFaults};
pub(crate) use signer_share::{IDLE_TIMEOUT, SignerShare, TableFull};
pub(crate) use throttle::{Bucket, Quota, TooFast};

use crate::auth::Signer;
use crate::bounded::{Budget, Permit, Permits};
use crate::config::{FrontendLimits, Settings};
use crate::metrics::PermitRefusals;
use crate::net::descriptor::client_files_max;

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
    /// Requests forwarded to other nodes, by client address.
    pub hop_clients: Option<Permits<AddressKey>>,
    /// Requests forwarded to other nodes, by owner and connection.
    pub hops: HopLimits,
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
            hop_clients: addresses(given(limits.connections_per_address)),
            hops: HopLimits::default(),
            open: Arc::new(Budget::new(usize::MAX)),
        }
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
