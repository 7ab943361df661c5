//! Ends of client connections that their app servers may not have heard of: kept until it is certain that somebody has.
//!
//! ```text
//!  a client leaves ─┬─ its link takes the notice ──► told ──acknowledged, or old──► forgotten
//!                   │                                 │ the session ends before that
//!                   └─ it has no link ─────────────► untold ◄┘
//!                                                     ├─ its app server may live: told there, as soon as that has a link
//!                                                     └─ it is certainly gone, or handed it over: told      to another one
//! ```
//!
//! An app server that was only cut off has the connection still, or has ended it itself; so as long as that may be,
//! only it is told, by a close. Any other one has never had the connection: it gets an opening frame that says so. Pure
//! but for the links.

use std::collections::VecDeque;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{CAUSE_HEADER, ENDED_ERROR_HEADER, ENDED_HEADER, MIGRATE_FROM_HEADER};
use trunkline_protocol::service::{CloseConnection, OpenConnection, ServiceMessage};

use crate::bounded::shrink_queue;
use crate::metrics::Counters;
use crate::shard::connection::Opening;
use crate::upstream::{AppServerId, HomeLink, Hub, HubIndex, HubRegistry, LinkId, RouteChoice, ServerGroup};

/// Limit of the ends that a shard remembers; the oldest go first.
const ENDS_MAX: usize = 16_384;

/// Limit of their bytes.
const ENDS_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Weight of an end beside its opening frame.
const END_BYTES: usize = 256;

/// Ticks for which an end is kept although its notice was acknowledged: its app server may have handed the client over
/// at that moment.
const KEPT_MIN_S: u32 = 2;

/// End of one client connection.
#[derive(Debug)]
pub(crate) struct UnheardEnd {
    pub(crate) hub: HubIndex,
    /// The app server that has had it.
    pub(crate) from: AppServerId,
    /// That app server has handed it over: it does not have it any more.
    pub(crate) is_handed_over: bool,
    pub(crate) id: ByteString,
    pub(crate) opening: Opening,
    /// Group of app servers that it was routed to.
    pub(crate) group: Option<Arc<ServerGroup>>,
    pub(crate) cause: Cause,
    pub(crate) error: Option<ByteString>,
    /// The link that took the notice; `None` while nobody was told.
    pub(crate) told: Option<HomeLink>,
    pub(crate) since: u32,
}

/// Ends of client connections of one shard that may still have to be told.
#[derive(Debug)]
pub(crate) struct UnheardEnds {
    ends: VecDeque<UnheardEnd>,
    bytes: usize,
    /// Seconds after which a link has acknowledged what it took, or its session is over.
    told_kept_s: u32,
    /// Seconds for which an end waits for somebody to be told.
    untold_kept_s: u32,
    counters: Arc<Counters>,
}

impl UnheardEnds {
    pub(crate) fn new(told_kept_s: u32, untold_kept_s: u32, counters: Arc<Counters>) -> Self {
        Self { ends: VecDeque::new(), bytes: 0, told_kept_s, untold_kept_s, counters }
    }

    /// Remembers the end of a client connection.
    pub(crate) fn add(&mut self, end: UnheardEnd) {
        self.bytes += end.weight();
        self.ends.push_back(end);
        while self.ends.len() > ENDS_MAX || self.bytes > ENDS_MAX_BYTES {
            let Some(oldest) = self.ends.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(oldest.weight());
            self.count_lost(&oldest);
        }
    }

    /// Whether any end is of a hub.
    pub(crate) fn are_any_of(&self, hub: HubIndex) -> bool {
        self.ends.iter().any(|end| end.hub == hub)
    }

    /// Learns that the session of a link is over, with the ids of those ends that were not acknowledged.
    pub(crate) fn link_lost(&mut self, link: LinkId, unheard: &[ByteString]) {
        let is_unheard = |id: &ByteString| unheard.binary_search(id).is_ok();
        self.keep(|end| match &end.told {
            Some(told) if told.id() == link => {
                end.told = None;
                is_unheard(&end.id)
            }
            _ => true,
        });
    }

    /// Learns that an app server has handed a client over, before it heard of its end.
    pub(crate) fn handed_over(&mut self, hub: HubIndex, app: AppServerId, id: &str) {
        let found = self.ends.iter_mut().rev().find(|end| end.hub == hub && end.from == app && end.id == id);
        if let Some(end) = found {
            (end.is_handed_over, end.told) = (true, None);
        }
    }

    /// Tells whoever can be told now.
    pub(crate) fn tell(&mut self, hubs: &HubRegistry, now: u32) {
        if self.ends.iter().all(|end| end.told.is_some()) {
            return;
        }
        for end in self.ends.iter_mut().filter(|end| end.told.is_none()) {
            let Some(hub) = hubs.at(end.hub) else { continue };
            end.told = match end.owner(&hub) {
                Some(link) => link.filter(|link| link.queue(&end.close())),
                None => end.tell_another(&hub, &hubs.instance(end.from), &self.counters),
            };
            if end.told.is_some() {
                end.since = now;
            }
        }
    }

    /// Forgets what is certainly told, and what has waited for too long.
    pub(crate) fn forget_old(&mut self, now: u32) {
        let (told_kept_s, untold_kept_s) = (self.told_kept_s, self.untold_kept_s);
        let counters = Arc::clone(&self.counters);
        self.keep(|end| {
            let age = now.saturating_sub(end.since);
            match &end.told {
                Some(link) => age < KEPT_MIN_S || (age < told_kept_s && !link.has_delivered_all()),
                None if age < untold_kept_s => true,
                None => {
                    counters.ends_lost.increment();
                    false
                }
            }
        });
        shrink_queue(&mut self.ends);
    }

    fn keep(&mut self, mut is_kept: impl FnMut(&mut UnheardEnd) -> bool) {
        let bytes = &mut self.bytes;
        self.ends.retain_mut(|end| {
            let is_kept = is_kept(end);
            if !is_kept {
                *bytes = bytes.saturating_sub(end.weight());
            }
            is_kept
        });
    }

    fn count_lost(&self, end: &UnheardEnd) {
        if end.told.is_none() {
            self.counters.ends_lost.increment();
        }
    }
}

impl UnheardEnd {
    /// The app server that has had the connection, if it may have it still: a link to it, unless there is none now.
    fn owner(&self, hub: &Hub) -> Option<Option<HomeLink>> {
        let pools = hub.pools();
        let own = pools.iter().find(|pool| pool.app().id == self.from && !self.is_handed_over)?;
        Some(own.any_link().filter(|link| link.is_open()))
    }

    /// Tells an app server that has never had the connection; returns the link.
    fn tell_another(&self, hub: &Hub, from: &str, counters: &Counters) -> Option<HomeLink> {
        let group = RouteChoice::group_name(self.group.as_ref());
        let mut homes = (0..hub.pools().len()).filter_map(|_| hub.choose_home_in(group));
        let home = homes.find(|home| home.knows_handovers())?;
        let told = home.queue(&self.opening(from)?);
        if told {
            counters.ends_passed_on.increment();
        }
        told.then_some(home)
    }

    fn opening(&self, from: &str) -> Option<ServiceMessage> {
        let mut open: OpenConnection = self.opening.read()?;
        open.headers.push((MIGRATE_FROM_HEADER.into(), vec![from.into()]));
        open.headers.push((ENDED_HEADER.into(), vec![self.cause.label().into()]));
        open.headers.extend(self.error.clone().map(|error| (ENDED_ERROR_HEADER.into(), vec![error])));
        Some(ServiceMessage::OpenConnection(open))
    }

    fn close(&self) -> ServiceMessage {
        let headers = vec![(CAUSE_HEADER.into(), vec![self.cause.label().into()])];
        ServiceMessage::CloseConnection(CloseConnection {
            connection_id: self.id.clone(),
            error: self.error.clone(),
            headers,
        })
    }

    fn weight(&self) -> usize {
        self.opening.own_bytes() + END_BYTES
    }
}
