//! Close notices that app servers may not have received, kept until an app server certainly has.
//!
//! ```text
//!  a client closes ─┬─ its link takes the notice ──► sent ──acknowledged, or expired──► removed
//!                   │                                 │ session ends first
//!                   └─ no link ────────────────────► unsent ◄┘
//!                                                     ├─ its app server may be alive: sent there, once it has a link
//!                                                     └─ certainly gone, or handed over: sent        to another one
//! ```
//!
//! While a disconnected app server may still have the connection, only that app server receives a close. Others never
//! had the connection, so they receive an opening frame marked as closed. Pure, except for the links.

use std::collections::VecDeque;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{CAUSE_HEADER, ENDED_ERROR_HEADER, ENDED_HEADER, MIGRATE_FROM_HEADER};
use trunkline_protocol::service::{CloseConnection, OpenConnection, ServiceMessage};

use crate::engine::shard::connection::Opening;
use crate::engine::upstream::{AppServerId, HomeLink, Hub, HubIndex, HubRegistry, LinkId, RouteChoice, ServerGroup};
use crate::ground::bounded::shrink_queue;
use crate::ground::metrics::Counters;

/// Maximum number of close notices kept by a shard. The oldest are dropped first.
const ENDS_MAX: usize = 16_384;

/// Maximum total bytes of a shard's close notices.
const ENDS_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Size of a notice without its opening frame.
const END_BYTES: usize = 256;

/// Ticks for which an acknowledged notice is kept, because its app server may have handed the client over meanwhile.
const KEPT_MIN_S: u32 = 2;

#[derive(Debug)]
pub(crate) struct PendingCloseNotice {
    pub(crate) hub: HubIndex,
    /// Former app server of the connection.
    pub(crate) from: AppServerId,
    /// Set if the former app server has handed the connection over and no longer has it.
    pub(crate) is_handed_over: bool,
    pub(crate) id: ByteString,
    pub(crate) opening: Opening,
    /// Server group that the connection was routed to.
    pub(crate) group: Option<Arc<ServerGroup>>,
    pub(crate) cause: Cause,
    pub(crate) error: Option<ByteString>,
    /// Link that took the notice; `None` if unsent.
    pub(crate) notified: Option<HomeLink>,
    pub(crate) since: u32,
}

/// Close notices of one shard's clients that may have to be sent.
#[derive(Debug)]
pub(crate) struct PendingCloseNotices {
    ends: VecDeque<PendingCloseNotice>,
    bytes: usize,
    /// Seconds after which a link has acknowledged its frames, or its session has ended.
    ack_ttl_s: u32,
    /// Seconds for which an unsent notice is kept.
    pending_ttl_s: u32,
    counters: Arc<Counters>,
}

impl PendingCloseNotices {
    pub(crate) fn new(ack_ttl_s: u32, pending_ttl_s: u32, counters: Arc<Counters>) -> Self {
        Self { ends: VecDeque::new(), bytes: 0, ack_ttl_s, pending_ttl_s, counters }
    }

    pub(crate) fn add_notice(&mut self, end: PendingCloseNotice) {
        self.bytes += end.weight();
        self.ends.push_back(end);
        while self.ends.len() > ENDS_MAX || self.bytes > ENDS_MAX_BYTES {
            let Some(oldest) = self.ends.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(oldest.weight());
            self.count_lost(&oldest);
        }
    }

    pub(crate) fn contains_hub(&self, hub: HubIndex) -> bool {
        self.ends.iter().any(|end| end.hub == hub)
    }

    /// Handles the end of a link's session, given the ids of unacknowledged notices.
    pub(crate) fn link_lost(&mut self, link: LinkId, pending_closes: &[ByteString]) {
        let is_pending = |id: &ByteString| pending_closes.binary_search(id).is_ok();
        self.keep(|end| match &end.notified {
            Some(notified) if notified.id == link => {
                end.notified = None;
                is_pending(&end.id)
            }
            _ => true,
        });
    }

    /// Handles a handover that an app server sent before it received the notice.
    pub(crate) fn handed_over(&mut self, hub: HubIndex, app: AppServerId, id: &str) {
        let found = self.ends.iter_mut().rev().find(|end| end.hub == hub && end.from == app && end.id == id);
        if let Some(end) = found {
            (end.is_handed_over, end.notified) = (true, None);
        }
    }

    /// Sends the notices that can be sent now.
    pub(crate) fn notify(&mut self, hubs: &HubRegistry, now: u32) {
        if self.ends.iter().all(|end| end.notified.is_some()) {
            return;
        }
        for end in self.ends.iter_mut().filter(|end| end.notified.is_none()) {
            let Some(hub) = hubs.at(end.hub) else { continue };
            end.notified = match end.owner(&hub) {
                Some(link) => link.filter(|link| link.queue(&end.close_message())),
                None => end.notify_another(&hub, &hubs.instance(end.from), &self.counters),
            };
            if end.notified.is_some() {
                end.since = now;
            }
        }
    }

    pub(crate) fn evict_old(&mut self, now: u32) {
        let (ack_ttl_s, pending_ttl_s) = (self.ack_ttl_s, self.pending_ttl_s);
        let counters = Arc::clone(&self.counters);
        self.keep(|end| {
            let age = now.saturating_sub(end.since);
            match &end.notified {
                Some(link) => age < KEPT_MIN_S || (age < ack_ttl_s && !link.has_delivered_all()),
                None if age < pending_ttl_s => true,
                None => {
                    counters.ends_lost.increment();
                    false
                }
            }
        });
        shrink_queue(&mut self.ends);
    }

    fn keep(&mut self, mut is_kept: impl FnMut(&mut PendingCloseNotice) -> bool) {
        let bytes = &mut self.bytes;
        self.ends.retain_mut(|end| {
            let is_kept = is_kept(end);
            if !is_kept {
                *bytes = bytes.saturating_sub(end.weight());
            }
            is_kept
        });
    }

    fn count_lost(&self, end: &PendingCloseNotice) {
        if end.notified.is_none() {
            self.counters.ends_lost.increment();
        }
    }
}

impl PendingCloseNotice {
    /// Link to the former app server if it may still have the connection: `Some(None)` while it has no open
    /// link.
    fn owner(&self, hub: &Hub) -> Option<Option<HomeLink>> {
        let pools = hub.pools();
        let own = pools.iter().find(|pool| pool.app.id == self.from && !self.is_handed_over)?;
        Some(own.any_link().filter(|link| link.is_open()))
    }

    /// Sends the notice to an app server that never had the connection. Returns the link.
    fn notify_another(&self, hub: &Hub, from: &str, counters: &Counters) -> Option<HomeLink> {
        let group = RouteChoice::group_name(self.group.as_ref());
        let mut homes = (0..hub.pools().len()).filter_map(|_| hub.choose_home_in(group));
        let home = homes.find(|home| home.supports_handovers())?;
        let notified = home.queue(&self.opening(from)?);
        if notified {
            counters.ends_passed_on.increment();
        }
        notified.then_some(home)
    }

    fn opening(&self, from: &str) -> Option<ServiceMessage> {
        let mut open: OpenConnection = self.opening.unpack()?;
        open.headers.push((MIGRATE_FROM_HEADER.into(), vec![from.into()]));
        open.headers.push((ENDED_HEADER.into(), vec![self.cause.label().into()]));
        open.headers.extend(self.error.clone().map(|error| (ENDED_ERROR_HEADER.into(), vec![error])));
        Some(ServiceMessage::OpenConnection(open))
    }

    fn close_message(&self) -> ServiceMessage {
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
