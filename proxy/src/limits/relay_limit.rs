//! Limit of requests that are under way to app servers: of one connection of a client, of one address, to one app
//! server, and of the node.
//!
//! ```text
//!  takes a place ─► its client sends ─► the app server works ─► its client reads ─► leaves
//!                    ▲ displaced where the client has       ▲ never   ▲ displaced likewise
//!                      done nothing for a while
//! ```
//!
//! When all places are taken, a newcomer gets that of the request which has waited longest for its client, as at the
//! admin port: an upload whose rest does not come, or an answer that nobody reads. If none has waited for long enough,
//! it gets that of the newest request of the address which has most of them, unless that is its own. Either costs a
//! client the request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address_key::{AddressKey, AddressPermit};
use crate::bounded::{Budget, BudgetShare, Lease, LeaseTable, Leases, Permit, Permits, newest_of_largest};
use crate::config::RelaySettings;
use crate::net::address::Address;

/// Time for which a request may wait for its client without losing its place.
const SAFE_WAIT: Duration = Duration::from_secs(1);

/// Bytes of an upload that pay for a second of waiting for it: the pace of a poor mobile uplink. A byte now and then
/// keeps no place that others want.
const SENDER_BYTES_PER_SECOND: u64 = 16 * 1024;

/// Time for which nobody is looked for again when none was found: looking is a pass over all requests.
const VAIN_LOOK: Duration = Duration::from_millis(50);

/// Part of all places that the requests of one connection of a client may take.
const CONNECTION_PART: usize = 16;

/// Least share of a connection: a page makes some requests at once.
const CONNECTION_SHARE_MIN: usize = 8;

/// Value instead of a time while a request does not wait for its client.
const NOT_WAITING: u64 = u64::MAX;

/// Requests under way to app servers.
#[derive(Debug)]
pub(crate) struct RelayLimit {
    node_max: usize,
    connection_max: usize,
    addresses: Permits<AddressKey>,
    upstreams: Permits<Address>,
    /// Requests that newer ones have displaced.
    displaced: AtomicU64,
    under_way: Leases<RelayRequest>,
    /// Times until which no request is searched for: at an app server, or among all.
    none_before: Mutex<HashMap<Search, Instant>>,
}

/// Search for a request that makes room: at an app server or among all, for a newcomer of an address.
type Search = (Option<Address>, Option<AddressKey>);

#[derive(Debug)]
struct RelayRequest {
    /// Address of its client; `None` where that stands for many.
    holder: Option<AddressKey>,
    /// Permit of its app server.
    upstream: Option<Permit<Address>>,
    progress: Arc<RelayProgress>,
}

/// Progress of one request: since when it waits for its client, in either direction.
#[derive(Debug)]
pub(crate) struct RelayProgress {
    start: Instant,
    /// Milliseconds from the start, later by what its bytes have paid for.
    sends_since_ms: AtomicU64,
    /// Wait for its bytes that none of them has paid for, in milliseconds, while it is not their turn.
    unpaid_ms: AtomicU64,
    reads_since_ms: AtomicU64,
}

/// Requests of one connection of a client that are under way; its clones count as one.
#[derive(Debug, Clone)]
pub(crate) struct RelayConnection(Arc<Budget>);

/// Permit of one request that is under way; dropping it returns it.
#[derive(Debug)]
pub(crate) struct RelayPermit {
    limit: Arc<RelayLimit>,
    request: Lease<RelayRequest>,
    progress: Arc<RelayProgress>,
    _connection: Option<BudgetShare>,
    _address: Option<AddressPermit>,
}

/// Limit that refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayRefusal {
    /// The node has as many under way as it may have.
    Node,
    /// The client's address has as many.
    Address,
    /// The client's connection has as many.
    Connection,
}

/// Whether a request may take the place of another one at an app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FullUpstream {
    PassOver,
    Displace,
}

impl RelayLimit {
    #[must_use]
    pub(super) fn new(settings: &RelaySettings) -> Arc<Self> {
        let limit = |most: Option<u32>| most.filter(|most| *most > 0).map_or(usize::MAX, |most| most as usize);
        let (node_max, upstream_max) = (limit(settings.requests_max), limit(settings.requests_per_upstream_max));
        let least = node_max.min(upstream_max);
        Arc::new(Self {
            node_max,
            connection_max: (least / CONNECTION_PART).max(CONNECTION_SHARE_MIN),
            addresses: Permits::new(usize::MAX, limit(settings.requests_per_address_max)),
            upstreams: Permits::new(usize::MAX, upstream_max),
            displaced: AtomicU64::new(0),
            under_way: Leases::default(),
            none_before: Mutex::default(),
        })
    }

    /// Counter of the requests of a new connection.
    #[must_use]
    pub(crate) fn connection(&self) -> RelayConnection {
        RelayConnection(Arc::new(Budget::new(self.connection_max)))
    }

    /// Number of requests that newer ones have displaced.
    #[must_use]
    pub(crate) fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }

    /// Permit for one more request of this address, on this connection; without them it counts for the node alone.
    /// Another request may be displaced for it.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn take(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        connection: Option<&RelayConnection>,
    ) -> Result<RelayPermit, RelayRefusal> {
        let connection =
            connection.map(|connection| connection.0.take(1).ok_or(RelayRefusal::Connection)).transpose()?;
        let holder = address.map(AddressKey::from);
        let address = address.map(|ip| self.addresses.take(Some(ip.into())).map_err(|_| RelayRefusal::Address));
        let address = address.transpose()?;
        let progress = Arc::new(RelayProgress::new());
        let request = RelayRequest { holder, upstream: None, progress: progress.clone() };
        let choose = |requests: &LeaseTable<_>, _: &_| self.choose_displaced(requests, (None, holder));
        let request = self.under_way.take_or_revoke(self.node_max, request, choose);
        let request = request.ok_or(RelayRefusal::Node)?;
        Ok(RelayPermit { limit: self.clone(), request, progress, _connection: connection, _address: address })
    }

    /// Chooses the request to an app server, or of all, that makes room for a newcomer, and counts it as displaced.
    fn choose_displaced(&self, requests: &LeaseTable<RelayRequest>, search: Search) -> Option<u64> {
        let now = Instant::now();
        // A vain search at one app server says nothing of the others, nor one of a large holder of small ones.
        let mut none_before = self.none_before.lock().unwrap_or_else(PoisonError::into_inner);
        none_before.retain(|_, before| *before > now);
        if none_before.contains_key(&search) {
            return None;
        }
        let (upstream, newcomer) = &search;
        let is_there = |request: &RelayRequest| upstream.is_none() || request.upstream() == upstream.as_ref();
        let there = || requests.iter().filter(|(_, request)| is_there(request));
        let waiting = there().filter_map(|(number, request)| Some((request.progress.waits_since()?, number)));
        let longest = waiting.min().filter(|(since, _)| now.saturating_duration_since(*since) >= SAFE_WAIT);
        let chosen = longest.map(|(_, number)| number).or_else(|| {
            let held = there().filter_map(|(number, request)| Some((number, request.holder?, 1)));
            newest_of_largest(held, (newcomer.as_ref(), 1))
        });
        if chosen.is_none() {
            none_before.insert(search, now + VAIN_LOOK);
        }
        self.displaced.fetch_add(u64::from(chosen.is_some()), Ordering::Relaxed);
        chosen
    }
}

impl RelayRequest {
    /// App server that the request counts for.
    fn upstream(&self) -> Option<&Address> {
        self.upstream.as_ref()?.key()
    }
}

impl RelayPermit {
    /// Counts the request for this app server instead of the one before; `false` if that has as many as it may have,
    /// and no other request is displaced for this one.
    #[must_use]
    pub(crate) fn choose(&mut self, upstream: &Address, when_full: FullUpstream) -> bool {
        self.request.update(|request| request.upstream = None);
        let take = || self.limit.upstreams.take(Some(upstream.clone())).ok();
        let mut requests = self.limit.under_way.lock();
        let permit = take().or_else(|| {
            let displaces = when_full == FullUpstream::Displace;
            let holder = requests.get_mut(self.request.number()).and_then(|request| request.holder);
            let search = (Some(upstream.clone()), holder);
            let chosen = displaces.then(|| self.limit.choose_displaced(&requests, search))??;
            requests.revoke(chosen);
            take()
        });
        let is_taken = permit.is_some();
        if let Some(request) = requests.get_mut(self.request.number()) {
            request.upstream = permit;
        }
        is_taken
    }

    /// Progress of the request, which its bodies note.
    #[must_use]
    pub(crate) fn progress(&self) -> &RelayProgress {
        &self.progress
    }

    /// End of the request for a newer one.
    #[must_use]
    pub(crate) fn displacement(&self) -> CancellationToken {
        self.request.token().clone()
    }
}

impl RelayProgress {
    fn new() -> Self {
        let (sends_since_ms, reads_since_ms) = (AtomicU64::new(NOT_WAITING), AtomicU64::new(NOT_WAITING));
        Self { start: Instant::now(), sends_since_ms, unpaid_ms: AtomicU64::new(0), reads_since_ms }
    }

    /// Notes that it is the client's turn to send.
    pub(crate) fn wait_for_sender(&self) {
        // A wait goes on until something comes, however often somebody asks.
        if self.sends_since_ms.load(Ordering::Relaxed) == NOT_WAITING {
            let since_ms = self.now_ms().saturating_sub(self.unpaid_ms.load(Ordering::Relaxed));
            self.sends_since_ms.store(since_ms, Ordering::Relaxed);
        }
    }

    /// Notes that the client has sent so many bytes, which pay for a part of the wait.
    pub(crate) fn sent(&self, bytes: usize) {
        let waited_ms = match self.sends_since_ms.swap(NOT_WAITING, Ordering::Relaxed) {
            NOT_WAITING => self.unpaid_ms.load(Ordering::Relaxed),
            since_ms => self.now_ms().saturating_sub(since_ms),
        };
        let paid_ms = (bytes as u64).saturating_mul(1000) / SENDER_BYTES_PER_SECOND;
        self.unpaid_ms.store(waited_ms.saturating_sub(paid_ms), Ordering::Relaxed);
    }

    /// Notes that the client need not send any more.
    pub(crate) fn has_sent_all(&self) {
        self.sends_since_ms.store(NOT_WAITING, Ordering::Relaxed);
    }

    /// Notes that it is the client's turn to read.
    pub(crate) fn wait_for_reader(&self) {
        self.reads_since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Notes that the client has read all that there was.
    pub(crate) fn read(&self) {
        self.reads_since_ms.store(NOT_WAITING, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NOT_WAITING - 1)
    }

    /// Moment since which the request waits for its client.
    fn waits_since(&self) -> Option<Instant> {
        let since = [&self.sends_since_ms, &self.reads_since_ms].map(|since| since.load(Ordering::Relaxed));
        let since_ms = since.into_iter().min().filter(|since| *since != NOT_WAITING)?;
        Some(self.start + Duration::from_millis(since_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(node: u32, upstream: u32, address: u32) -> Arc<RelayLimit> {
        RelayLimit::new(&RelaySettings {
            requests_max: Some(node),
            requests_per_upstream_max: Some(upstream),
            requests_per_address_max: Some(address),
            ..RelaySettings::embedded()
        })
    }

    fn ip(last: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(last.into()))
    }

    fn app(last: u8) -> Address {
        format!("http://10.0.0.{last}").parse().unwrap()
    }

    fn place(limit: &Arc<RelayLimit>) -> Result<RelayPermit, RelayRefusal> {
        limit.take(ip(1), None)
    }

    /// Four connections of 256 requests each, as many as one address once held at an app server.
    const REQUESTS: usize = 4 * 256;

    #[tokio::test(start_paused = true)]
    async fn an_address_holds_no_more_requests_than_it_may_and_others_have_theirs() {
        let limit = limit(8192, 1024, 256);
        let permits: Vec<_> = (0..REQUESTS).filter_map(|_| place(&limit).ok()).collect();
        assert_eq!((permits.len(), place(&limit).err()), (256, Some(RelayRefusal::Address)));
        assert!(limit.take(ip(2), None).is_ok());
        drop(permits);
        assert!(place(&limit).is_ok());
        assert_eq!(limit.under_way.lock().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_and_each_app_server_have_limits_of_their_own() {
        let limit = limit(3, 2, 0);
        let (one, two) = (app(1), app(2));
        let mut permits: Vec<_> = (0..3).map(|_| place(&limit).unwrap()).collect();
        assert_eq!(place(&limit).err(), Some(RelayRefusal::Node));
        let chosen: Vec<_> = permits.iter_mut().map(|permit| permit.choose(&one, FullUpstream::PassOver)).collect();
        assert_eq!(chosen, [true, true, false]);
        assert!(permits[2].choose(&two, FullUpstream::PassOver), "another one has room");
        assert!(permits[0].choose(&two, FullUpstream::PassOver) && permits[0].choose(&one, FullUpstream::PassOver));
        drop(permits);
        assert_eq!((limit.under_way.lock().len(), limit.upstreams.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_gets_the_place_of_the_request_that_has_waited_longest_for_its_client() {
        let limit = limit(3, 0, 0);
        let permits: Vec<_> = (0..3).map(|_| place(&limit).unwrap()).collect();
        let step = || tokio::time::advance(Duration::from_secs(1));
        permits[1].progress().wait_for_sender();
        step().await;
        permits[2].progress().wait_for_reader();
        assert!(place(&limit).is_ok(), "the first newcomer");
        let displaced = || permits.iter().map(|permit| permit.request.token().is_cancelled()).collect::<Vec<_>>();
        assert_eq!(displaced(), [false, true, false]);
        let (one, two) = (place(&limit).unwrap(), place(&limit));
        assert_eq!(two.err(), Some(RelayRefusal::Node), "whoever waits for a moment only keeps its place");
        step().await;
        let three = place(&limit).unwrap();
        assert_eq!(displaced(), [false, true, true]);
        step().await;
        assert_eq!(place(&limit).err(), Some(RelayRefusal::Node), "nobody waits for an app server in vain");
        drop((one, three, permits));
        assert_eq!(limit.under_way.lock().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_trickles_loses_its_place_and_one_that_comes_at_its_pace_keeps_it() {
        let limit = limit(2, 0, 0);
        let [trickle, steady] = [place(&limit).unwrap(), place(&limit).unwrap()];
        for permit in [&trickle, &steady] {
            permit.progress().wait_for_sender();
        }
        for _ in 0..4 {
            tokio::time::advance(Duration::from_millis(900)).await;
            for (permit, bytes) in [(&trickle, 1), (&steady, 16 * 1024)] {
                permit.progress().sent(bytes);
                permit.progress().wait_for_sender();
            }
        }
        assert!(place(&limit).is_ok());
        assert!(trickle.request.token().is_cancelled() && !steady.request.token().is_cancelled());
        assert_eq!(place(&limit).err(), None, "the newcomer has left");
        let (_third, none) = (place(&limit).unwrap(), place(&limit));
        assert_eq!(none.err(), Some(RelayRefusal::Node), "the steady one keeps its place");
    }

    #[tokio::test(start_paused = true)]
    async fn at_a_full_app_server_only_its_own_requests_are_displaced() {
        let limit = limit(0, 1, 0);
        let mut permits: Vec<_> = (0..3).map(|_| place(&limit).unwrap()).collect();
        assert!(permits[0].choose(&app(1), FullUpstream::PassOver));
        assert!(permits[1].choose(&app(2), FullUpstream::PassOver));
        permits[1].progress().wait_for_reader();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!permits[2].choose(&app(1), FullUpstream::Displace));
        // A vain look at one app server keeps nobody from another one.
        assert!(!permits[2].choose(&app(2), FullUpstream::PassOver));
        assert!(permits[2].choose(&app(2), FullUpstream::Displace));
        assert!(permits[1].request.token().is_cancelled() && !permits[0].request.token().is_cancelled());
        drop(permits);
        assert_eq!(limit.upstreams.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_asks_anew_all_the_time_keeps_no_place_from_others() {
        let limit = limit(64, 0, 0);
        let stranger = || limit.take(ip(1), None);
        let mut flood: Vec<_> = (0..64).map(|_| stranger().unwrap()).collect();
        let mut refused = 0;
        for number in 0..200 {
            // 1200 new ones a second, none of which is old enough to lose its place for waiting.
            tokio::time::advance(Duration::from_millis(1)).await;
            flood.rotate_left(1);
            drop(flood.pop());
            flood.extend(stranger().ok());
            let one = limit.take(ip(2 + number % 10), None);
            refused += u32::from(one.is_err());
        }
        assert_eq!(refused, 0, "of 200 requests of others");
        let _other = limit.take(ip(99), None).unwrap();
        assert_eq!(stranger().err(), Some(RelayRefusal::Node), "the largest makes no room for itself");
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_for_all_clients_loses_nothing_that_is_under_way() {
        let limit = limit(2, 1, 0);
        let [mut one, mut two] = [place(&limit).unwrap(), place(&limit).unwrap()];
        assert_eq!(place(&limit).err(), Some(RelayRefusal::Node));
        assert!(one.choose(&app(1), FullUpstream::PassOver) && !two.choose(&app(1), FullUpstream::Displace));
        assert!(!one.request.token().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_a_sixteenth_of_the_places() {
        let limit = limit(4096, 1024, 0);
        let connection = limit.connection();
        let take = || limit.take(ip(1), Some(&connection));
        let permits: Vec<_> = (0..100).filter_map(|_| take().ok()).collect();
        assert_eq!((permits.len(), take().err()), (64, Some(RelayRefusal::Connection)));
        assert!(limit.take(ip(1), Some(&limit.connection())).is_ok());
        drop(permits);
        assert_eq!(connection.0.used(), 0);
    }
}
