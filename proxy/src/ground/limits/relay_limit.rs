//! Limits of requests in flight to app servers: per client connection, per address, per app server and per node.
//!
//! ```text
//!  takes a permit ─► client sends ─► app server works ─► client reads ─► ends
//!                   ▲ displaced     ▲ never             ▲ displaced
//!                     if idle for a while                 likewise
//! ```
//!
//! When all permits are taken, a new request displaces the request that has waited longest for its client (a stalled
//! upload, or a response that is not read). If none has waited long enough, it displaces the newest request of the
//! address with the most requests, unless that is its own address. The displaced request fails. One pass over all
//! requests serves the new requests of some milliseconds.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address_key::{AddressKey, AddressPermit};
use crate::ground::bounded::{Budget, BudgetShare, Holders, Lease, LeaseTable, Leases, Permit, Permits, pass_interval};
use crate::ground::config::RelaySettings;
use crate::ground::net::address::Address;

/// Time for which a request may wait for its client without being displaced.
const SAFE_WAIT: Duration = Duration::from_secs(1);

/// Upload rate that counts as progress: the speed of a poor mobile uplink. An occasional byte does not protect a
/// request from being displaced.
const SENDER_BYTES_PER_SECOND: u64 = 16 * 1024;

/// Divisor for the share of all permits that one client connection may take.
const CONNECTION_PART: usize = 16;

/// Minimum share of a connection: a page sends several requests in parallel.
const CONNECTION_SHARE_MIN: usize = 8;

/// Marker of a request that is not waiting for its client.
const NOT_WAITING: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct RelayLimit {
    node_max: usize,
    connection_max: usize,
    addresses: Permits<AddressKey>,
    upstreams: Permits<Address>,
    displaced: AtomicU64,
    under_way: Leases<RelayRequest>,
    /// Requests to displace, by full app server; `None` for all app servers.
    plans: Mutex<HashMap<Option<Address>, DisplacementPlan>>,
}

#[derive(Debug)]
struct DisplacementPlan {
    until: Instant,
    /// Requests that wait for their clients, the longest first.
    waiting: VecDeque<u64>,
    holders: Holders<AddressKey>,
}

#[derive(Debug)]
struct RelayRequest {
    /// Address of the client; `None` if many clients share the address.
    holder: Option<AddressKey>,
    upstream: Option<Permit<Address>>,
    progress: Arc<RelayProgress>,
}

/// Progress of one request: since when it has waited for its client, in either direction.
#[derive(Debug)]
pub(crate) struct RelayProgress {
    start: Instant,
    /// Milliseconds since the start, moved later by received bytes.
    sends_since_ms: AtomicU64,
    /// Wait in milliseconds not covered by received bytes, stored while the request is not waiting for the client.
    unpaid_ms: AtomicU64,
    reads_since_ms: AtomicU64,
    /// The head of the answer is relayed.
    is_answered: AtomicBool,
}

/// Requests in flight of one client connection. Clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct RelayConnection(Arc<Budget>);

#[derive(Debug)]
pub(crate) struct RelayPermit {
    limit: Arc<RelayLimit>,
    request: Lease<RelayRequest>,
    progress: Arc<RelayProgress>,
    _connection: Option<BudgetShare>,
    _address: Option<AddressPermit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayRefusal {
    Node,
    Address,
    Connection,
}

/// Whether a request may displace another one at a full app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FullUpstream {
    PassOver,
    Displace,
}

impl RelayLimit {
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
            plans: Mutex::default(),
        })
    }

    pub(crate) fn connection(&self) -> RelayConnection {
        RelayConnection(Arc::new(Budget::new(self.connection_max)))
    }

    pub(crate) fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }

    /// Takes a permit for a request of this address on this connection. Without them, only the node's limit applies.
    /// Another request may be displaced.
    ///
    /// # Errors
    /// Returns the limit that was reached.
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
        let choose = |requests: &LeaseTable<_>, _: &_| self.choose_displaced(requests, None, holder);
        let request = self.under_way.take_or_revoke(self.node_max, request, choose);
        let request = request.ok_or(RelayRefusal::Node)?;
        Ok(RelayPermit { limit: self.clone(), request, progress, _connection: connection, _address: address })
    }

    /// Chooses a request to displace, at one app server or among all, and counts it.
    fn choose_displaced(
        &self,
        requests: &LeaseTable<RelayRequest>,
        upstream: Option<&Address>,
        sender: Option<AddressKey>,
    ) -> Option<u64> {
        let now = Instant::now();
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.retain(|_, plan| plan.until > now);
        let interval = pass_interval(requests.len() * (plans.len() + 1));
        let plan = plans.entry(upstream.cloned()).or_insert_with(|| DisplacementPlan::of(requests, upstream, interval));
        let chosen = plan.choose(requests, upstream, sender);
        self.displaced.fetch_add(u64::from(chosen.is_some()), Ordering::Relaxed);
        chosen
    }
}

impl DisplacementPlan {
    fn of(requests: &LeaseTable<RelayRequest>, upstream: Option<&Address>, interval: Duration) -> Self {
        let there = || requests.iter().filter(|(_, request)| request.is_at(upstream));
        let mut waiting: Vec<_> = there()
            .filter(|(_, request)| request.has_waited())
            .filter_map(|(number, request)| Some((request.progress.waits_since()?, number)))
            .collect();
        waiting.sort_unstable();
        let ending = there().filter(|(_, request)| request.progress.can_be_cut());
        let holders = Holders::of(ending.filter_map(|(number, request)| Some((number, request.holder?, 1))));
        Self {
            until: Instant::now() + interval,
            waiting: waiting.into_iter().map(|(_, number)| number).collect(),
            holders,
        }
    }

    /// Takes the next request to displace. Requests that have ended or changed since the pass are skipped.
    fn choose(
        &mut self,
        requests: &LeaseTable<RelayRequest>,
        upstream: Option<&Address>,
        sender: Option<AddressKey>,
    ) -> Option<u64> {
        let there = |number: u64| requests.get(number).filter(|request| request.is_at(upstream));
        while let Some(number) = self.waiting.pop_front() {
            if there(number).is_some_and(RelayRequest::has_waited) {
                return Some(number);
            }
        }
        while let Some(number) = self.holders.newest_of_largest((sender.as_ref(), 1)) {
            if there(number).is_some_and(|request| request.progress.can_be_cut()) {
                sender.iter().for_each(|key| self.holders.add(key, 1));
                return Some(number);
            }
        }
        None
    }
}

impl RelayRequest {
    /// Whether the request counts for this app server; `None` for any.
    fn is_at(&self, upstream: Option<&Address>) -> bool {
        upstream.is_none() || self.upstream.as_ref().and_then(Permit::key) == upstream
    }

    /// Whether the request has waited for its client long enough to be displaced.
    fn has_waited(&self) -> bool {
        self.progress.waits_since().is_some_and(|since| since.elapsed() >= SAFE_WAIT)
    }
}

impl RelayPermit {
    /// Moves the request to the limit of this app server. Returns `false` if the app server is full and no other
    /// request can be displaced.
    #[must_use]
    pub(crate) fn choose(&mut self, upstream: &Address, when_full: FullUpstream) -> bool {
        self.request.update(|request| request.upstream = None);
        let take = || self.limit.upstreams.take(Some(upstream.clone())).ok();
        let mut requests = self.limit.under_way.lock();
        let permit = take().or_else(|| {
            let displaces = when_full == FullUpstream::Displace;
            let holder = requests.get_mut(self.request.number).and_then(|request| request.holder);
            let chosen = displaces.then(|| self.limit.choose_displaced(&requests, Some(upstream), holder))??;
            requests.revoke(chosen);
            take()
        });
        let is_taken = permit.is_some();
        if let Some(request) = requests.get_mut(self.request.number) {
            request.upstream = permit;
        }
        is_taken
    }

    pub(crate) fn progress(&self) -> &RelayProgress {
        &self.progress
    }

    /// Token that is cancelled when a newer request displaces this one.
    pub(crate) fn displacement(&self) -> CancellationToken {
        self.request.token().clone()
    }
}

impl RelayProgress {
    fn new() -> Self {
        let (sends_since_ms, reads_since_ms) = (AtomicU64::new(NOT_WAITING), AtomicU64::new(NOT_WAITING));
        let (unpaid_ms, is_answered) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { start: Instant::now(), sends_since_ms, unpaid_ms, reads_since_ms, is_answered }
    }

    /// Marks the start of waiting for bytes from the client.
    pub(crate) fn wait_for_sender(&self) {
        // Polling again does not restart the wait.
        if self.sends_since_ms.load(Ordering::Relaxed) == NOT_WAITING {
            let since_ms = self.now_ms().saturating_sub(self.unpaid_ms.load(Ordering::Relaxed));
            self.sends_since_ms.store(since_ms, Ordering::Relaxed);
        }
    }

    /// Records bytes sent by the client, which reduce the wait.
    pub(crate) fn sent(&self, bytes: usize) {
        let waited_ms = match self.sends_since_ms.swap(NOT_WAITING, Ordering::Relaxed) {
            NOT_WAITING => self.unpaid_ms.load(Ordering::Relaxed),
            since_ms => self.now_ms().saturating_sub(since_ms),
        };
        let paid_ms = (bytes as u64).saturating_mul(1000) / SENDER_BYTES_PER_SECOND;
        self.unpaid_ms.store(waited_ms.saturating_sub(paid_ms), Ordering::Relaxed);
    }

    pub(crate) fn has_sent_all(&self) {
        self.sends_since_ms.store(NOT_WAITING, Ordering::Relaxed);
    }

    /// Marks the start of waiting for the client to read.
    pub(crate) fn wait_for_reader(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
        self.reads_since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Records that the client has read all pending bytes.
    pub(crate) fn read(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
        self.reads_since_ms.store(NOT_WAITING, Ordering::Relaxed);
    }

    /// Whether a displaced request ends immediately. An answer that its client reads, and a tunnel, continue:
    /// displacing them would only stop their count.
    fn can_be_cut(&self) -> bool {
        !self.is_answered.load(Ordering::Relaxed) || self.waits_since().is_some()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NOT_WAITING - 1)
    }

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

    /// Four connections with 256 requests each: the number that one address once held at an app server.
    const REQUESTS: usize = 4 * 256;

    #[tokio::test(start_paused = true)]
    async fn requests_of_an_address_are_limited_and_do_not_affect_others() {
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
    async fn a_new_request_displaces_the_one_that_has_waited_longest_for_its_client() {
        let limit = limit(3, 0, 0);
        let permits: Vec<_> = (0..3).map(|_| place(&limit).unwrap()).collect();
        let step = || tokio::time::advance(Duration::from_secs(1));
        permits[1].progress().wait_for_sender();
        step().await;
        permits[2].progress().wait_for_reader();
        assert!(place(&limit).is_ok(), "the first new request");
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
        assert_eq!(place(&limit).err(), None, "the new request has ended");
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
        // A failed search at one app server does not block a search at another.
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
            // 1200 new requests a second, all too recent to be displaced for waiting.
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
    async fn a_flood_from_many_addresses_costs_one_pass_over_the_requests() {
        let limit = limit(64, 0, 0);
        let mut permits: Vec<_> = (0..64).map(|number| limit.take(ip(number), None).unwrap()).collect();
        assert_eq!(limit.take(ip(1_000), None).err(), Some(RelayRefusal::Node), "no address has more");
        drop(permits.pop());
        permits.push(limit.take(ip(0), None).unwrap());
        let refused = (2_000..3_000).filter(|number| limit.take(ip(*number), None).is_err()).count();
        assert_eq!(refused, 1_000, "the pass has not found the second request of address 0");
        tokio::time::advance(pass_interval(64)).await;
        assert!(limit.take(ip(4_000), None).is_ok(), "the next pass finds it");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_its_client_reads_is_counted_to_its_end() {
        let limit = limit(4, 0, 0);
        let permits: Vec<_> = (0..4).map(|_| place(&limit).unwrap()).collect();
        permits[2].progress().wait_for_reader();
        permits[2].progress().read();
        permits[3].progress().read();
        let _other = limit.take(ip(2), None).unwrap();
        let displaced: Vec<_> = permits.iter().map(|permit| permit.request.token().is_cancelled()).collect();
        assert_eq!(displaced, [false, true, false, false], "the newest one without an answer");
        assert_eq!(limit.take(ip(3), None).err(), Some(RelayRefusal::Node));
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
