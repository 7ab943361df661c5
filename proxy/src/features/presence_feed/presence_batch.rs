//! Batched presence updates, split into frames of bounded size.

use std::mem;

use bytestring::ByteString;
use trunkline_protocol::manifest::PresenceScope;
use trunkline_protocol::service::{GroupJoin, PresenceChanges, PresencePhase};

/// Bytes of names at which a frame ends, so that later frames on the link wait no longer than for a page of
/// members.
const FRAME_MAX_BYTES: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(crate) struct PresenceBatch {
    full: Vec<PresenceChanges>,
    open: PresenceChanges,
    bytes: usize,
}

impl PresenceBatch {
    pub(crate) fn online(&mut self, user: &str) {
        self.open.online.push(user.into());
        self.count(user.len());
    }

    pub(crate) fn offline(&mut self, user: &str) {
        self.open.offline.push(user.into());
        self.count(user.len());
    }

    pub(crate) fn joined(&mut self, group: &str, connection_id: &str, user: Option<&str>) {
        let user_id = user.map(ByteString::from);
        self.open.joined.push(GroupJoin { group: group.into(), connection_id: connection_id.into(), user_id });
        self.count(group.len() + connection_id.len() + user.map_or(0, str::len));
    }

    pub(crate) fn left(&mut self, group: &str, connection_id: &str) {
        self.open.left.push((group.into(), connection_id.into()));
        self.count(group.len() + connection_id.len());
    }

    /// Frames for an app server with this scope; none without matching updates.
    pub(crate) fn frames(&self, scope: PresenceScope) -> Vec<PresenceChanges> {
        let all = self.full.iter().chain([&self.open]);
        all.map(|update| narrowed(update, scope)).filter(|update| !is_empty(update)).collect()
    }

    /// Frames for a part of a snapshot; the last one has the phase `end`.
    #[must_use]
    pub(crate) fn into_snapshot(self, scope: PresenceScope, end: PresencePhase) -> Vec<PresenceChanges> {
        let part = |update, phase| PresenceChanges { phase, ..narrowed(update, scope) };
        let full = self.full.iter().map(|update| part(update, PresencePhase::Snapshot));
        full.chain([part(&self.open, end)]).collect()
    }

    /// Whether a frame is full, so that further updates start another one.
    pub(crate) fn has_full_frame(&self) -> bool {
        !self.full.is_empty()
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= FRAME_MAX_BYTES {
            self.full.push(mem::take(&mut self.open));
            self.bytes = 0;
        }
    }
}

fn narrowed(update: &PresenceChanges, scope: PresenceScope) -> PresenceChanges {
    let PresenceChanges { online, offline, joined, left, .. } = update.clone();
    let (online, offline) = if scope.users { (online, offline) } else { Default::default() };
    let (joined, left) = if scope.groups { (joined, left) } else { Default::default() };
    PresenceChanges { online, offline, joined, left, ..PresenceChanges::default() }
}

fn is_empty(update: &PresenceChanges) -> bool {
    let PresenceChanges { online, offline, joined, left, .. } = update;
    online.is_empty() && offline.is_empty() && joined.is_empty() && left.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: PresenceScope = PresenceScope { users: true, groups: false };

    #[test]
    fn long_names_are_cut_into_frames_and_nothing_is_lost() {
        let mut batch = PresenceBatch::default();
        let name = "x".repeat(1000);
        for _ in 0..1000 {
            batch.joined("room", "c", Some(&name));
        }
        batch.online("ann");
        let both = PresenceScope { users: true, groups: true };
        let frames = batch.frames(both);
        assert_eq!(frames.iter().map(|frame| frame.joined.len()).sum::<usize>(), 1000);
        assert_eq!((frames.len(), frames.last().map(|frame| frame.online.len())), (4, Some(1)));
        let users = batch.frames(USERS);
        assert_eq!((users.len(), users[0].joined.len()), (1, 0));
        let phases: Vec<_> =
            batch.into_snapshot(both, PresencePhase::SnapshotEnd).into_iter().map(|frame| frame.phase).collect();
        let part = PresencePhase::Snapshot;
        assert_eq!(phases, [part, part, part, PresencePhase::SnapshotEnd]);
    }

    #[test]
    fn an_empty_batch_has_no_frames_but_a_snapshot_of_nothing_has_an_end() {
        assert!(PresenceBatch::default().frames(USERS).is_empty());
        let end = PresenceBatch::default().into_snapshot(USERS, PresencePhase::SnapshotEnd);
        assert_eq!(end, [PresenceChanges { phase: PresencePhase::SnapshotEnd, ..PresenceChanges::default() }]);
    }
}
