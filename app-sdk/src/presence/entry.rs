//! Entry of a view of presence: where a user or a member of a group is, and what the app was told of it.

use std::collections::HashSet;
use std::sync::Arc;

use trunkline_protocol::service::PresenceChanges;

/// Where something is, and what was told of it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Shards that have it: mostly one.
    at: Vec<SourceId>,
    user: Option<Arc<str>>,
    /// Whether it was there when it changed last.
    was_here: bool,
    /// The app was told that it is there, and not that it has gone.
    is_told: bool,
    pending: Option<Pending>,
    /// Change that has turned back before it was told: the tick, and those that had heard of it.
    turned_back: Option<(u64, Arc<[Arc<str>]>)>,
    /// This app server told it last: it takes that back itself, because others may not have seen a change at all.
    is_mine: bool,
    /// It is kept until this tick although it is nowhere, because this app server told so.
    kept_until: Option<u64>,
}

/// Ticks after which all that hear of changes know of one that has turned back.
const TURNED_BACK_TICKS: u64 = 20;

/// Change that the app is to be told.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) due: u64,
    pub(super) teller: Teller,
}

/// App server that tells of a change, and those that have heard of it.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    /// Instance of the one that tells.
    pub(super) owner: Arc<str>,
    /// Instances that were listed when the change was heard of: one that has come later does not know it.
    pub(super) heard_by: Arc<[Arc<str>]>,
    /// It was to be told by another one, which may have told it before it was gone.
    pub(super) is_inherited: bool,
}

/// Outcome of a comparison of what is with what was told.
#[derive(Debug)]
pub(super) enum Settled {
    AsBefore,
    /// A change begins to be pending.
    Begun,
    /// A change that was pending is none any more. The one that was to tell it may have done so, if its grace was over
    /// earlier.
    TurnedBack(Teller),
}

impl Entry {
    /// Entry that is nowhere yet; what `is_known` was told before.
    pub(super) fn new(user: Option<Arc<str>>, is_known: bool) -> Self {
        Self {
            at: Vec::new(),
            user,
            was_here: false,
            is_told: is_known,
            pending: None,
            turned_back: None,
            is_mine: false,
            kept_until: None,
        }
    }

    pub(super) fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    pub(super) fn add(&mut self, id: SourceId) {
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

    /// Whether it was there when it was settled last.
    pub(super) fn was_here(&self) -> bool {
        self.was_here
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// Has another app server tell a pending change, if there is an heir; or has it told even if it turns back.
    pub(super) fn pass_on(&mut self, heir: Option<Arc<str>>, is_doubtful: bool) {
        let Some(pending) = &mut self.pending else { return };
        pending.teller.is_inherited |= heir.is_some() || is_doubtful;
        if let Some(heir) = heir {
            pending.teller.owner = heir;
            self.is_mine = false;
        }
    }

    /// Whether it is nowhere, nobody has to be told, and nothing has turned back a moment ago.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.is_idle() && self.lingers_until().is_none_or(|until| until < now)
    }

    /// Last tick at which it is kept although it is nowhere, because a change has turned back.
    pub(super) fn lingers_until(&self) -> Option<u64> {
        let turned_back = self.turned_back.as_ref().map(|(at, _)| at + TURNED_BACK_TICKS);
        turned_back.max(self.kept_until).filter(|_| self.is_idle())
    }

    /// Whether there is nothing to wait for at this tick.
    pub(super) fn is_ready(&self, now: u64) -> bool {
        match &self.pending {
            Some(pending) => pending.due <= now,
            None => self.lingers_until().is_none_or(|until| until < now),
        }
    }

    fn is_idle(&self) -> bool {
        self.at.is_empty() && !self.is_told && self.pending.is_none()
    }

    /// Compares what is with what was told. `teller` is given those of whom one
    /// has to tell: who has come between a change and its turning back may know of neither.
    pub(super) fn settle(
        &mut self,
        (now, due): (u64, u64),
        is_suspended: impl Fn(SourceId) -> bool,
        teller: impl FnOnce(Option<&[Arc<str>]>) -> Teller,
    ) -> Settled {
        self.was_here = self.at.iter().any(|id| !is_suspended(*id));
        if self.was_here == self.is_told {
            if self.is_doubtful() {
                return Settled::AsBefore;
            }
            let Some(Pending { teller, .. }) = self.pending.take() else { return Settled::AsBefore };
            self.turned_back = Some((now, Arc::clone(&teller.heard_by)));
            return Settled::TurnedBack(teller);
        }
        if self.pending.is_some() {
            return Settled::AsBefore;
        }
        let turned_back = self.turned_back.take().filter(|(at, _)| now <= at + TURNED_BACK_TICKS);
        let teller = teller(turned_back.as_ref().map(|(_, heard_by)| &**heard_by));
        self.pending = Some(Pending { due, teller });
        Settled::Begun
    }

    /// Whether an app server that is gone may have told it, or may not: it is told again, however it is then.
    fn is_doubtful(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.teller.is_inherited)
    }

    /// Has it told again, by the heir of an app server that is gone.
    pub(super) fn doubt(&mut self, due: u64, heir: Teller) {
        let due = self.pending.as_ref().map_or(due, |pending| pending.due);
        self.pending = Some(Pending { due, teller: heir });
    }

    /// Takes a change that is due: whether it is there, and who else tells it; nobody else where this app server does.
    pub(super) fn take_due(
        &mut self,
        (now, kept_until): (u64, u64),
        is_suspended: impl Fn(SourceId) -> bool,
        me: &str,
    ) -> Option<(bool, Option<Teller>)> {
        let pending = self.pending.take_if(|pending| pending.due <= now)?;
        self.is_told = self.at.iter().any(|id| !is_suspended(*id));
        let tells = *pending.teller.owner == *me || self.is_mine;
        self.is_mine = tells;
        self.kept_until = (tells && !self.is_told).then_some(kept_until);
        Some((self.is_told, (!tells).then_some(pending.teller)))
    }
}

/// Place of a source in its view.
pub(super) type SourceId = usize;

/// Thing that a source holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Held {
    User(Arc<str>),
    /// Member of a group, by its connection id.
    Member(Arc<str>, Arc<str>),
}

impl Held {
    /// Name by which the app server is chosen that tells of it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Member(name, _) => name,
        }
    }
}

/// A shard of a node, as it tells of itself.
#[derive(Debug)]
pub(super) struct Source<N> {
    pub(super) node: N,
    pub(super) shard: i64,
    pub(super) stream: i64,
    /// Its first snapshot is under way, in whichever stream, and was told before.
    pub(super) is_known: bool,
    /// It can't be reached, and may be gone.
    pub(super) is_suspended: bool,
    /// Instances that hear of its changes.
    pub(super) listed: Arc<[Arc<str>]>,
    /// Holdings of its former stream, as far as the snapshot of this one has not confirmed them.
    pub(super) stale: HashSet<Held>,
}

impl<N> Source<N> {
    /// Source whose first update this is.
    pub(super) fn new(node: N, update: &PresenceChanges, is_known: bool) -> Self {
        let listed = update.app_servers.iter().flatten().map(|instance| Arc::from(&**instance)).collect();
        let (shard, stream) = (update.shard, update.stream);
        Self { node, shard, stream, is_known, is_suspended: false, listed, stale: HashSet::new() }
    }
}
