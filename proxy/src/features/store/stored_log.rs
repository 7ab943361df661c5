//! Records of groups and users in the store: a log for each, of the parts that were written together.
//!
//! ```text
//!  sends of a round ─► one part ─► log, unless another recorder has appended
//!  new recorder ◄─ all parts, joined ◄─ log
//! ```
//!
//! Of two recorders, the second to append fails, and reads the log again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use trunkline_protocol::service::{RecordPage, RecordReply};

use super::store_engine::EngineAnswer;
use super::{Store, StoreAway, StoreLink, WRITE_TIMEOUT};
use crate::features::message_log::RecordKey;

/// Time for reading a whole record. A rule limits the size of records.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a part besides its messages and their ids.
const PART_HEAD_BYTES: usize = 1024;

/// Number of old parts from which on they are removed.
const TRIMMED_MIN: usize = 64;

/// State of a record in the store, at its recorder.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredParts {
    /// Revision of the newest part; 0 without parts.
    revision: u64,
    /// Number of the last stored message.
    pub(crate) number: u64,
    pub(crate) is_finished: bool,
    /// Parts with the numbers of their last messages.
    parts: VecDeque<(u64, u64)>,
}

impl StoredParts {
    pub(crate) fn is_empty(&self) -> bool {
        self.revision == 0
    }

    fn add(&mut self, number: u64, revision: u64) {
        (self.number, self.revision) = (number, revision);
        self.parts.push_back((number, revision));
    }
}

/// Record read from the store.
#[derive(Debug)]
pub(crate) enum StoredRecord {
    /// The record is as it was known.
    Same,
    /// There is no such record.
    Nothing,
    Found(RecordPage, StoredParts),
}

impl Store {
    /// Maximum size of a recorded message; `None` while the store is away.
    pub(crate) fn message_max(&self) -> Option<usize> {
        let link = self.link.borrow();
        let max = link.as_ref().ok()?.connection.logs().value_max();
        Some(max.saturating_sub(PART_HEAD_BYTES))
    }

    /// Reads a record, unless it is the known one.
    pub(crate) async fn read_record(
        &self,
        key: &RecordKey,
        known: Option<&StoredParts>,
    ) -> Result<StoredRecord, StoreAway> {
        let link = self.wait_for_link(Instant::now() + WRITE_TIMEOUT).await?;
        let log = log_name(&link, key);
        let logs = link.connection.logs();
        let newest = self.logged(READ_TIMEOUT, logs.newest(&log)).await?;
        match newest {
            0 => return Ok(StoredRecord::Nothing),
            newest if known.is_some_and(|known| known.revision == newest) => return Ok(StoredRecord::Same),
            _ => {}
        }
        let (mut whole, mut stored) = (RecordPage::default(), StoredParts::default());
        for (revision, sealed) in self.logged(READ_TIMEOUT, logs.read(&log, newest)).await? {
            let plain = link.key.open_bytes(&log, &sealed);
            match plain.and_then(|plain| RecordReply::decode(&plain.into()).ok()?.page) {
                Some(part) => {
                    if join(&mut whole, part) {
                        stored.add(whole.newest, revision);
                    }
                }
                None => self.counters.untrusted.increment(),
            }
        }
        // Also behind values of other clients.
        (stored.revision, stored.is_finished) = (newest, whole.is_finished);
        Ok(if stored.parts.is_empty() { StoredRecord::Nothing } else { StoredRecord::Found(whole, stored) })
    }

    /// Appends a part to a record. Returns `false` if another recorder has changed the record.
    pub(crate) async fn append_part(
        &self,
        key: &RecordKey,
        stored: &mut StoredParts,
        (part, kept): (RecordPage, Duration),
    ) -> Result<bool, StoreAway> {
        let link = self.wait_for_link(Instant::now() + WRITE_TIMEOUT).await?;
        let (log, number, is_finished) = (log_name(&link, key), part.newest, part.is_finished);
        let plain = RecordReply { page: Some(part), ..RecordReply::default() }.encode();
        let sealed = link.key.seal_bytes(&log, plain.into()).map_err(|error| self.broken(error.to_string()))?;
        let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        let begun = Instant::now();
        let append = link.connection.logs().append(&log, sealed, stored.revision, kept_ms);
        let appended = self.logged(WRITE_TIMEOUT, append).await?;
        self.counters.durations.observe_duration(begun.elapsed());
        self.counters.writes.increment();
        let Some(revision) = appended else { return Ok(false) };
        stored.add(number, revision);
        stored.is_finished = is_finished;
        Ok(true)
    }

    /// Removes the parts of a record with messages before a number only, if there are many. A failure is tried again
    /// after the next part.
    pub(crate) async fn trim_record(&self, key: &RecordKey, stored: &mut StoredParts, oldest: u64) {
        let old = stored.parts.partition_point(|(number, _)| *number < oldest);
        // The newest part shows where the record ends.
        let old = old.min(stored.parts.len().saturating_sub(1));
        if old >= TRIMMED_MIN
            && let Some(&(_, before)) = stored.parts.get(old)
            && self.trim(key, before).await.is_ok()
        {
            stored.parts.drain(..old);
        }
    }

    /// Deletes a record as far as its recorder has seen it.
    pub(crate) async fn delete_record(&self, key: &RecordKey, stored: &StoredParts) -> Result<(), StoreAway> {
        self.trim(key, stored.revision + 1).await
    }

    async fn trim(&self, key: &RecordKey, before: u64) -> Result<(), StoreAway> {
        let link = self.wait_for_link(Instant::now() + WRITE_TIMEOUT).await?;
        let log = log_name(&link, key);
        self.logged(WRITE_TIMEOUT, link.connection.logs().trim(&log, before)).await
    }

    async fn logged<T>(&self, within: Duration, answer: EngineAnswer<'_, T>) -> Result<T, StoreAway> {
        match timeout_at(Instant::now() + within, answer).await {
            Ok(answer) => answer.map_err(|problem| self.broken(problem)),
            Err(_) => Err(self.broken("no answer in time".into())),
        }
    }

    fn broken(&self, problem: String) -> StoreAway {
        StoreAway { problem, since: Instant::now() }
    }
}

fn log_name(link: &StoreLink, (hub, set): &RecordKey) -> String {
    let kind = if set.is_user { "user" } else { "group" };
    link.key.hash_of(kind, &[Some(hub), Some(&set.name)])
}

/// Adds a part to a record. Returns `false` for an older part, a copy by another client. Behind a gap the record begins
/// again: messages before the gap are no longer kept.
fn join(whole: &mut RecordPage, mut part: RecordPage) -> bool {
    if (part.epoch, part.after) < (whole.epoch, whole.newest) {
        return false;
    }
    if (part.epoch, part.after) == (whole.epoch, whole.newest) {
        whole.messages.append(&mut part.messages);
        whole.ids.append(&mut part.ids);
        (whole.newest, whole.is_finished) = (part.newest, whole.is_finished || part.is_finished);
    } else {
        *whole = part;
    }
    true
}
