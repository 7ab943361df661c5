//! Watch a client of this shard: note its messages for as long as somebody looks.

use super::Shard;
use crate::shard::delivery::{Report, WATCHES_MAX};
use crate::shard::directory::Slot;

/// Why a client can't be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WatchError {
    /// It is not here.
    #[error("there is no such connection")]
    Unknown,
    #[error("{WATCHES_MAX} clients of its shard are watched already, and no more can be: end one of these watches")]
    TooMany,
}

impl Shard {
    /// Begins to watch a client; the number names the watch.
    ///
    /// # Errors
    /// When it is not here, or too many are watched.
    pub(crate) fn watch(&self, slot: Slot, id: &str, with_payloads: bool) -> Result<u64, WatchError> {
        let slot = self.is_at(slot, id).ok_or(WatchError::Unknown)?;
        let content = self.directory.borrow().get(slot).map(|client| client.content).ok_or(WatchError::Unknown)?;
        self.watches.begin(slot, content, with_payloads).ok_or(WatchError::TooMany)
    }

    /// What a watch has seen since it was asked last; `None` when it has ended.
    #[must_use]
    pub(crate) fn watched(&self, number: u64) -> Option<Report> {
        self.watches.report(number)
    }

    pub(crate) fn unwatch(&self, number: u64) {
        self.watches.end(number);
    }

    /// A client has sent whole messages.
    #[inline]
    pub(crate) fn note_up(&self, slot: Slot, messages: &[u8]) {
        if self.watches.are_any() {
            self.watches.note_up(slot, messages);
        }
    }
}
