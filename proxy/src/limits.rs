//! Limits of a node: counters of sockets, connections and negotiates. Pure: time comes in as an argument.
//!
//! All of it is off the delivery path. Connecting touches an atomic or one of several small tables; a client's messages
//! are counted only where a limit for them is set.

mod address_key;
mod auth_throttle;
mod head_budget;
mod hop_limit;
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
pub(crate) use auth_throttle::AuthThrottle;
pub(crate) use head_budget::{HeadBudget, HeadWeight};
pub(crate) use hop_limit::{HOPS_PER_CONNECTION_MAX, HOPS_PER_OWNER_MAX, HopLimits, HopPermit};
pub(crate) use log_throttle::LogThrottle;
pub(crate) use method_rate::{MethodRates, RatedCall, RatedCaller};
pub(crate) use pending_negotiation::PendingNegotiations;
pub(crate) use relay_limit::{FullUpstream, RelayConnection, RelayLimit, RelayPermit, RelayProgress, RelayRefusal};
pub(crate) use rest_permit::{RestPermit, RestPermits, RestShare};
pub(crate) use setup_fault::{SetupFault, SetupFaults};
pub(crate) use signer_share::{IDLE_TIMEOUT, SignerShare, TableFull};
pub(crate) use throttle::{Bucket, Quota, TooFast};

use crate::bounded::{Budget, Permits};
use crate::config::{FrontendLimits, RelaySettings};

/// Lines of the log that clients may bring about in a second. Whoever comes again and again would fill a disk; counters
/// and the history of connections tell of all.
const LOG_LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Lines in a second about mistakes of clients. Any stranger can make them, so they leave the others their room.
const MISTAKE_LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(1).unwrap();

/// Clients in a second that may learn at once that their connection is not to be had any more. They negotiate anew
/// without a pause, so when a node dies all of its clients would do so in one moment.
const REFUSED_RETURNS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Hellos without a tag in a second that are tried with all keys. A restart of some hundred app servers takes seconds.
const UNTAGGED_HELLOS_PER_SECOND: NonZeroU32 = NonZeroU32::new(50).unwrap();

/// Longest wait of such a client. How many wait is bounded by the limits of sockets.
const REFUSED_RETURN_WAIT: Duration = Duration::from_secs(5);

/// Counters that all shards of a node share.
#[derive(Debug)]
pub(crate) struct LimitCounters {
    /// Rate of new client connections.
    pub connects: Option<Bucket>,
    /// Sockets that are no client connection (yet), by address.
    pub sockets: Option<Permits<AddressKey>>,
    /// Client connections, by address.
    pub clients: Option<Permits<AddressKey>>,
    /// Negotiates that led to no connection yet, by address.
    pub pending: Option<PendingNegotiations>,
    /// Pipes that a POST has made before the first GET.
    pub pipes: Permits<AddressKey>,
    /// Large heads that open connections keep.
    pub heads: HeadBudget,
    /// Requests under way to app servers.
    pub relays: Arc<RelayLimit>,
    /// Rates of calls by method and user.
    pub methods: MethodRates,
    /// Lines of the log that clients bring about.
    log_lines: Bucket,
    mistake_lines: Bucket,
    /// Log lines about what stands in front of this node.
    pub setup_faults: SetupFaults,
    refused_returns: Bucket,
    /// Hellos of channels that were no good, by address.
    pub failed_hellos: AuthThrottle,
    untagged_hellos: Bucket,
    /// Requests that are carried to other nodes, by their client's address.
    pub hop_clients: Option<Permits<AddressKey>>,
    /// Requests that are carried to other nodes, by owner and connection.
    pub hops: HopLimits,
    /// Sockets on which requests are served; those of client connections are counted elsewhere.
    pub open: Arc<Budget>,
}

impl LimitCounters {
    #[must_use]
    pub(crate) fn new(limits: &FrontendLimits, relay: &RelaySettings) -> Self {
        let addresses = |most: Option<NonZeroU32>| most.map(|most| Permits::new(usize::MAX, most.get() as usize));
        let given = |most: Option<u32>| most.and_then(NonZeroU32::new);
        Self {
            connects: limits.connects_per_second.map(Bucket::new),
            sockets: addresses(limits.sockets_per_address),
            clients: addresses(given(limits.connections_per_address)),
            pending: given(limits.pending_per_address).map(PendingNegotiations::new),
            pipes: Permits::new(PENDING_PIPES_MAX, PENDING_PIPES_PER_ADDRESS_MAX),
            heads: HeadBudget::new(limits.heads_total_bytes),
            relays: RelayLimit::new(relay),
            methods: MethodRates::default(),
            log_lines: Bucket::new(LOG_LINES_PER_SECOND),
            mistake_lines: Bucket::new(MISTAKE_LINES_PER_SECOND),
            setup_faults: SetupFaults::default(),
            refused_returns: Bucket::new(REFUSED_RETURNS_PER_SECOND),
            failed_hellos: AuthThrottle::default(),
            untagged_hellos: Bucket::new(UNTAGGED_HELLOS_PER_SECOND),
            hop_clients: addresses(given(limits.connections_per_address)),
            hops: HopLimits::default(),
            open: Arc::new(Budget::new(usize::MAX)),
        }
    }

    /// Whether a line of the log that a client brings about fits what may be logged in a second.
    #[must_use]
    pub(crate) fn may_log(&self, now: Duration) -> bool {
        self.log_lines.take(now, Duration::ZERO).is_ok()
    }

    /// Whether a line about a mistake of a client fits what may be logged in a second.
    #[must_use]
    pub(crate) fn may_log_mistake(&self, now: Duration) -> bool {
        self.mistake_lines.take(now, Duration::ZERO).is_ok()
    }

    /// Whether a hello without a tag is tried with all keys in this second.
    #[must_use]
    pub(crate) fn may_try_untagged(&self, now: Duration) -> bool {
        self.untagged_hellos.take(now, Duration::ZERO).is_ok()
    }

    /// Time for which the refusal of a client waits that has come back to a connection which is not to be had any more.
    #[must_use]
    pub(crate) fn refused_return_wait(&self, now: Duration) -> Duration {
        self.refused_returns.take(now, REFUSED_RETURN_WAIT).unwrap_or(REFUSED_RETURN_WAIT)
    }
}
