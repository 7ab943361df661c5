//! Entry of a presence view: where a user or group member is connected, and the last state reported to the app.

use std::collections::HashSet;
use std::sync::Arc;

use trunkline_protocol::service::PresenceChanges;

#[derive(Debug)]
pub(super) struct Entry {
    /// Shards that have it, usually one.
    at: Vec<SourceId>,
    pub(super) user: Option<Arc<str>>,
    /// Whether it was present after the last change.
    was_here: bool,
    /// Whether it was last reported as present.
    is_reported: bool,
    pending: Option<Pending>,
    /// A change that reverted before it was reported: its tick, and the app servers that had received the change.
    turned_back: Option<(u64, Arc<[Arc<str>]>)>,
    /// This app server made the last report. It also reports the reversal: other app servers may have seen no change.
    is_mine: bool,
    /// Tick until which the entry is kept although absent, because this app server reported the absence.
    kept_until: Option<u64>,
}

/// Ticks after which all app servers that receive changes have received a reverted one.
const TURNED_BACK_TICKS: u64 = 20;

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) due: u64,
    pub(super) reporter: Reporter,
}

/// App server that reports a change, and the app servers that have received it.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    pub(super) owner: Arc<str>,
    /// Instances that were subscribed when the change was received. Later ones have not seen it.
    pub(super) received_by: Arc<[Arc<str>]>,
    /// Taken over from a lost app server, which may already have reported it.
    pub(super) is_inherited: bool,
}

#[derive(Debug)]
pub(super) enum Settled {
    AsBefore,
    /// A new change is pending.
    Begun,
    /// A pending change was reverted. If its grace period ended earlier, its reporter may already have reported it.
    TurnedBack(Reporter),
}

impl Entry {
    /// Creates an entry that is present nowhere. `is_known` marks presence that was reported before.
    pub(super) fn new(user: Option<Arc<str>>, is_known: bool) -> Self {
        Self {
            at: Vec::new(),
            user,
            was_here: false,
            is_reported: is_known,
            pending: None,
            turned_back: None,
            is_mine: false,
            kept_until: None,
        }
    }

    pub(super) fn add_source(&mut self, id: SourceId) {
        if !self.at.contains(&id) {
            self.at.push(id);
        }
    }

    pub(super) fn remove(&mut self, id: SourceId) {
        self.at.retain(|at| *at != id);
    }

    pub(super) fn is_at(&self, id: SourceId) -> bool {
        self.at.contains(&id)
    }

    pub(super) fn was_here(&self) -> bool {
        self.was_here
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// Assigns a pending change to the heir, if any. `is_doubtful` forces the report even if the change reverts.
    pub(super) fn pass_on(&mut self, heir: Option<Arc<str>>, is_doubtful: bool) {
        let Some(pending) = &mut self.pending else { return };
        pending.reporter.is_inherited |= heir.is_some() || is_doubtful;
        if let Some(heir) = heir {
            pending.reporter.owner = heir;
            self.is_mine = false;
        }
    }

    /// Whether it is absent, nothing is to be reported, and no change reverted recently.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.is_idle() && self.lingers_until().is_none_or(|until| until < now)
    }

    /// Last tick for which the absent entry is kept, because a change reverted.
    pub(super) fn lingers_until(&self) -> Option<u64> {
        let turned_back = self.turned_back.as_ref().map(|(at, _)| at + TURNED_BACK_TICKS);
        turned_back.max(self.kept_until).filter(|_| self.is_idle())
    }

    pub(super) fn is_ready(&self, now: u64) -> bool {
        match &self.pending {
            Some(pending) => pending.due <= now,
            None => self.lingers_until().is_none_or(|until| until < now),
        }
    }

    fn is_idle(&self) -> bool {
        self.at.is_empty() && !self.is_reported && self.pending.is_none()
    }

    /// Compares the current state with the last one reported. `reporter` selects the reporter among the given
    /// instances: an instance that subscribed between a change and its reversal may have seen neither.
    pub(super) fn settle(
        &mut self,
        (now, due): (u64, u64),
        is_suspended: impl Fn(SourceId) -> bool,
        reporter: impl FnOnce(Option<&[Arc<str>]>) -> Reporter,
    ) -> Settled {
        self.was_here = self.at.iter().any(|id| !is_suspended(*id));
        if self.was_here == self.is_reported {
            if self.is_doubtful() {
                return Settled::AsBefore;
            }
            let Some(Pending { reporter, .. }) = self.pending.take() else { return Settled::AsBefore };
            self.turned_back = Some((now, Arc::clone(&reporter.received_by)));
            return Settled::TurnedBack(reporter);
        }
        if self.pending.is_some() {
            return Settled::AsBefore;
        }
        let turned_back = self.turned_back.take().filter(|(at, _)| now <= at + TURNED_BACK_TICKS);
        let reporter = reporter(turned_back.as_ref().map(|(_, received_by)| &**received_by));
        self.pending = Some(Pending { due, reporter });
        Settled::Begun
    }

    /// Whether a lost app server may have reported it. Then the current state is always reported.
    fn is_doubtful(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.reporter.is_inherited)
    }

    /// Schedules another report by the heir of a lost app server.
    pub(super) fn schedule_report(&mut self, due: u64, heir: Reporter) {
        let due = self.pending.as_ref().map_or(due, |pending| pending.due);
        self.pending = Some(Pending { due, reporter: heir });
    }

    /// Takes a due change: whether it is present, and the app server that reports it (`None` for this one).
    pub(super) fn take_due(
        &mut self,
        (now, kept_until): (u64, u64),
        is_suspended: impl Fn(SourceId) -> bool,
        me: &str,
    ) -> Option<(bool, Option<Reporter>)> {
        let pending = self.pending.take_if(|pending| pending.due <= now)?;
        self.is_reported = self.at.iter().any(|id| !is_suspended(*id));
        let tells = *pending.reporter.owner == *me || self.is_mine;
        self.is_mine = tells;
        self.kept_until = (tells && !self.is_reported).then_some(kept_until);
        Some((self.is_reported, (!tells).then_some(pending.reporter)))
    }
}

/// Index of a source in its view.
pub(super) type SourceId = usize;

/// User or member that a source reports as present.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Held {
    User(Arc<str>),
    /// Member of a group, by connection ID.
    Member(Arc<str>, Arc<str>),
}

impl Held {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Member(name, _) => name,
        }
    }
}

/// A shard of a node as a source of updates.
#[derive(Debug)]
pub(super) struct Source<N> {
    pub(super) node: N,
    pub(super) shard: i64,
    pub(super) stream: i64,
    /// Its first snapshot is in progress, possibly on a later stream, with presence that was already reported.
    pub(super) is_known: bool,
    /// Unreachable, and possibly lost.
    pub(super) is_suspended: bool,
    /// Instances that receive its changes.
    pub(super) listed: Arc<[Arc<str>]>,
    /// Entries of the previous stream that the current snapshot has not confirmed yet.
    pub(super) stale: HashSet<Held>,
}

impl<N> Source<N> {
    pub(super) fn new(node: N, update: &PresenceChanges, is_known: bool) -> Self {
        let listed = update.app_servers.iter().flatten().map(|instance| Arc::from(&**instance)).collect();
        let (shard, stream) = (update.shard, update.stream);
        Self { node, shard, stream, is_known, is_suspended: false, listed, stale: HashSet::new() }
    }
}
