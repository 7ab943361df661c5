//! Records of groups and users in memory: the messages sent to each, in one order. Pure.
//!
//! ```text
//!  append ─► record: epoch, numbers without gaps ─► pages behind a position
//!              └─ loses its oldest messages: by number, by age, and by the budget of all records
//! ```
//!
//! A new record begins with a higher epoch, so a position of an earlier one is recognised. Above the budget, the app
//! with the most bytes loses the oldest of its messages.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::id::random_bytes;
use trunkline_protocol::limits::SEND_ID_MAX_BYTES;
use trunkline_protocol::service::{
    Position, RecordPage, RecordRefusal, RecordStart, RecordedId, RecordedMessage, RecordedSet,
};

use crate::ground::auth::Signer;
use crate::ground::routing::HistoryTerms;

/// Maximum bytes of the messages of a page, unless a single one is larger.
const PAGE_MAX_BYTES: usize = 256 * 1024;

/// Memory of a message, of the id of a send and of a record in bytes, besides contents and names.
const MESSAGE_OVERHEAD_BYTES: usize = 96;
const ID_OVERHEAD_BYTES: usize = 128;
const RECORD_OVERHEAD_BYTES: usize = 512;

/// Number of messages of an app that may be gone and are still in its order.
const ORDER_SPARE: usize = 1024;

/// Time for which the id of a send is kept at least.
pub(crate) const ID_KEPT_MS: u64 = 120_000;

/// Maximum number of ids of a record beyond its messages.
const IDS_SPARE_MAX: usize = 10_000;

/// Time for which the position of a record without messages is kept, for its followers.
const EMPTY_KEPT_MS: u64 = 24 * 3600 * 1000;

/// Time for which a record that was given to another node is not begun again.
const GIVEN_KEPT_MS: u64 = 10_000;

/// Reset if messages behind a position are no longer kept.
const EXPIRED: &str = "expired";

/// Reset if a position is not of this record.
const LOST: &str = "lost";

/// Reason why a record did not take or end anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordRefused {
    #[error("the record is finished: delete it to begin another one")]
    Finished,
    #[error("there is no such record")]
    Missing,
    #[error("another message was sent with this id")]
    OtherMessage,
    #[error("the message has {bytes} bytes, but a recorded one may have {max}: see {limit}")]
    TooLarge { bytes: usize, max: usize, limit: &'static str },
    /// The record is moving to another node.
    #[error("the record is being moved to {0}: try again")]
    Moving(String),
    /// A node would not deliver the message.
    #[error("the node {0} has links to the app server, but is no peer of this node: see --peers")]
    Unpeered(String),
    /// The node with the record does not answer, or can't take the message.
    #[error("{0}: try again")]
    Unreachable(String),
}

impl RecordRefused {
    /// Kind of the refusal between nodes.
    pub(crate) fn kind(&self) -> RecordRefusal {
        match self {
            Self::Finished => RecordRefusal::Finished,
            Self::Missing => RecordRefusal::Missing,
            Self::OtherMessage => RecordRefusal::OtherMessage,
            Self::TooLarge { .. } => RecordRefusal::TooLarge,
            Self::Moving(_) | Self::Unpeered(_) => RecordRefusal::Moving,
            Self::Unreachable(_) => RecordRefusal::Unreachable,
        }
    }
}

/// Hub and set of a record.
pub(crate) type RecordKey = (Arc<str>, RecordedSet);

#[derive(Debug, Default)]
pub(crate) struct MessageLog {
    max_bytes: usize,
    bytes: usize,
    last_epoch: u64,
    records: HashMap<Arc<RecordKey>, MessageRecord>,
    apps: HashMap<Signer, AppMessages>,
    /// Incomplete records from other nodes, each with the time of its last part.
    arriving: HashMap<RecordKey, (MessageRecord, u64)>,
    /// Records given to other nodes, with boot id of the node and time. Messages for these are refused for a while.
    given: HashMap<RecordKey, (String, u64)>,
}

/// Bytes of an app, and its messages in order of their arrival. Some of them may be gone.
#[derive(Debug, Default)]
struct AppMessages {
    bytes: usize,
    order: VecDeque<(Arc<RecordKey>, Position)>,
}

#[derive(Debug)]
struct MessageRecord {
    app: Signer,
    epoch: u64,
    newest: u64,
    /// Time of the last message.
    used_ms: u64,
    terms: HistoryTerms,
    is_finished: bool,
    /// Bytes of messages and ids.
    bytes: usize,
    /// Kept messages up to the newest one, with the time of their arrival.
    messages: VecDeque<(u64, Bytes)>,
    ids: HashMap<ByteString, SentId>,
    id_order: VecDeque<ByteString>,
}

#[derive(Debug)]
struct SentId {
    hash: u64,
    number: u64,
    at_ms: u64,
}

/// Record without its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordSummary {
    pub(crate) set: RecordedSet,
    /// Number of kept messages.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) newest: Position,
    /// Time of the newest message, in milliseconds since 1970.
    pub(crate) used_ms: u64,
    pub(crate) is_finished: bool,
}

/// Place of an appended message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) position: Position,
    /// The id was used before, so nothing was appended.
    pub(crate) is_repeated: bool,
}

impl MessageLog {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::default() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn count(&self) -> usize {
        self.records.len()
    }

    /// Appends a message, with the id of the send if it has one. Fails if the record is finished, or if the id is of
    /// another message.
    pub(crate) fn append(
        &mut self,
        key: &RecordKey,
        (app, terms): (&Signer, HistoryTerms),
        (id, body): (Option<&ByteString>, Bytes),
        now_ms: u64,
    ) -> Result<Appended, RecordRefused> {
        let bytes = body.len() + MESSAGE_OVERHEAD_BYTES + RECORD_OVERHEAD_BYTES;
        if bytes > self.max_bytes {
            return Err(RecordRefused::TooLarge { bytes, max: self.max_bytes, limit: "--history-max-bytes" });
        }
        let hash = id.map_or(0, |_| hash_of(&body));
        if self.is_given(key, now_ms) {
            return Err(RecordRefused::Moving("another node".into()));
        }
        let key = self.find_or_begin(key, app, now_ms);
        let Some(record) = self.records.get_mut(&key) else { return Err(RecordRefused::Missing) };
        record.terms = terms;
        if let Some(sent) = id.and_then(|id| record.ids.get(id)) {
            let position = Position { epoch: record.epoch, number: sent.number };
            return match sent.hash == hash {
                true => Ok(Appended { position, is_repeated: true }),
                false => Err(RecordRefused::OtherMessage),
            };
        }
        if record.is_finished {
            return Err(RecordRefused::Finished);
        }
        record.newest += 1;
        record.used_ms = now_ms;
        let position = Position { epoch: record.epoch, number: record.newest };
        let mut added = MESSAGE_OVERHEAD_BYTES + body.len();
        if let Some(id) = id {
            added += id.len() + ID_OVERHEAD_BYTES;
            record.ids.insert(id.clone(), SentId { hash, number: record.newest, at_ms: now_ms });
            record.id_order.push_back(id.clone());
        }
        record.messages.push_back((now_ms, body));
        record.bytes += added;
        let freed = record.trim(now_ms);
        self.account(app, added, freed);
        let messages = self.apps.entry(app.clone()).or_default();
        messages.order.push_back((key, position));
        if messages.order.len() > ORDER_SPARE + 2 * messages.bytes / MESSAGE_OVERHEAD_BYTES {
            messages
                .order
                .retain(|(key, position)| self.records.get(key).is_some_and(|record| record.keeps(*position)));
        }
        self.keep_budget(now_ms);
        Ok(Appended { position, is_repeated: false })
    }

    /// Messages from a start on, up to the size of a page.
    pub(crate) fn read(&mut self, key: &RecordKey, start: RecordStart, now_ms: u64) -> RecordPage {
        let lost = |is_lost: bool| is_lost.then(|| LOST.into());
        let Some((app, freed)) = self.records.get_mut(key).map(|record| (record.app.clone(), record.trim(now_ms)))
        else {
            return RecordPage { reset: lost(matches!(start, RecordStart::After(1.., _))), ..RecordPage::default() };
        };
        self.account(&app, 0, freed);
        self.records.get(key).map(|record| record.page(start)).unwrap_or_default()
    }

    /// Ends a record. Returns the position of its last message; fails if the record does not exist.
    pub(crate) fn finish(&mut self, key: &RecordKey) -> Result<Position, RecordRefused> {
        let record = self.records.get_mut(key).ok_or(RecordRefused::Missing)?;
        record.is_finished = true;
        Ok(Position { epoch: record.epoch, number: record.newest })
    }

    /// Removes a record. Fails if the record does not exist.
    pub(crate) fn delete(&mut self, key: &RecordKey) -> Result<Position, RecordRefused> {
        let record = self.records.remove(key).ok_or(RecordRefused::Missing)?;
        self.account(&record.app, 0, record.bytes(key));
        Ok(Position { epoch: record.epoch, number: record.newest })
    }

    /// Number of a record's oldest message. `None` without messages.
    pub(crate) fn oldest(&self, key: &RecordKey) -> Option<u64> {
        let record = self.records.get(key).filter(|record| !record.messages.is_empty());
        record.map(MessageRecord::oldest)
    }

    /// Number of the records of a hub, and the largest ones.
    pub(crate) fn list(&self, hub: &str, limit: usize) -> (u64, Vec<RecordSummary>) {
        let of_hub = self.records.iter().filter(|(key, _)| *key.0 == *hub);
        let mut all: Vec<_> = of_hub.map(|(key, record)| record.summary(key)).collect();
        let count = all.len() as u64;
        all.sort_by_key(|summary| Reverse(summary.bytes));
        all.truncate(limit);
        (count, all)
    }

    pub(crate) fn contains(&self, key: &RecordKey) -> bool {
        self.records.contains_key(key)
    }

    pub(crate) fn keys(&self) -> Vec<Arc<RecordKey>> {
        self.records.keys().cloned().collect()
    }

    /// Removes all messages that are too old, and records without messages that were not used for a day.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        self.given.retain(|_, (_, at_ms)| *at_ms + GIVEN_KEPT_MS > now_ms);
        self.arriving.retain(|_, (_, at_ms)| *at_ms + GIVEN_KEPT_MS > now_ms);
        let mut freed = Vec::new();
        self.records.retain(|key, record| {
            let bytes = record.trim(now_ms);
            let is_kept = !record.messages.is_empty() || record.used_ms + EMPTY_KEPT_MS > now_ms;
            let bytes = if is_kept { bytes } else { bytes + record.bytes(key) };
            if bytes > 0 {
                freed.push((record.app.clone(), bytes));
            }
            is_kept
        });
        freed.iter().for_each(|(app, bytes)| self.account(app, 0, *bytes));
    }

    /// Part of a record from behind a message, 0 for the first part, with this many bytes at most or one message. For
    /// the store, a part has the ids of its messages; for another node, the last part has all. `None` without a record.
    pub(crate) fn export(
        &mut self,
        key: &RecordKey,
        (after, is_stored): (u64, bool),
        (most, now_ms): (usize, u64),
    ) -> Option<RecordPage> {
        let record = self.records.get(key)?;
        let start = if after == 0 { RecordStart::Oldest } else { RecordStart::After(record.epoch, after) };
        let mut page = self.read(key, start, now_ms);
        let mut bytes = 0;
        let fitting = page.messages.iter().take_while(|message| {
            bytes += message.body.len() + SEND_ID_MAX_BYTES + ID_OVERHEAD_BYTES;
            bytes <= most
        });
        page.messages.truncate(fitting.count().max(1));
        let record = self.records.get(key)?;
        let last = page.messages.last().map_or(page.after, |message| message.number);
        if is_stored || last == page.newest {
            let id = |id: &ByteString| {
                let SentId { hash, number, at_ms } = *record.ids.get(id)?;
                Some(RecordedId { id: id.clone(), hash, number, at_ms })
            };
            let is_of_part = |id: &RecordedId| !is_stored || (after < id.number && id.number <= last);
            page.ids = record.id_order.iter().filter_map(id).filter(is_of_part).collect();
        }
        Some(page)
    }

    /// Removes a record that another node has up to this message. Returns `false` if it has a newer one.
    pub(crate) fn hand_over(&mut self, key: &RecordKey, up_to: u64, (boot, now_ms): (&str, u64)) -> bool {
        let is_whole = self.records.get(key).is_some_and(|record| record.newest == up_to);
        if is_whole {
            drop(self.delete(key));
            self.given.insert(key.clone(), (boot.to_owned(), now_ms));
        }
        is_whole
    }

    /// Whether a record was just given to another node.
    pub(crate) fn is_given(&self, key: &RecordKey, now_ms: u64) -> bool {
        !self.contains(key) && self.given.get(key).is_some_and(|(_, at_ms)| at_ms + GIVEN_KEPT_MS > now_ms)
    }

    /// Lets a record begin again that was given to a node that is gone.
    pub(crate) fn take_back(&mut self, key: &RecordKey, is_gone: impl FnOnce(&str) -> bool) {
        if self.given.get(key).is_some_and(|(boot, _)| is_gone(boot)) {
            self.given.remove(key);
        }
    }

    /// Adds a part of a record of another node. Of two records of a set the later one stays.
    pub(crate) fn import(
        &mut self,
        key: &RecordKey,
        (app, terms): (&Signer, HistoryTerms),
        page: RecordPage,
        now_ms: u64,
    ) {
        let begun = || MessageRecord { newest: page.after, terms, ..MessageRecord::new(app.clone(), page.epoch) };
        let known = self.arriving.remove(key).map(|(record, _)| record);
        let mut record = known.filter(|it| (it.epoch, it.newest) == (page.epoch, page.after)).unwrap_or_else(begun);
        record.newest += page.messages.len() as u64;
        record.messages.extend(page.messages.into_iter().map(|message| (message.at_ms, message.body)));
        for RecordedId { id, hash, number, at_ms } in page.ids {
            record.id_order.push_back(id.clone());
            record.ids.insert(id, SentId { hash, number, at_ms });
        }
        if record.newest < page.newest {
            self.arriving.insert(key.clone(), (record, now_ms));
            return;
        }
        (record.is_finished, record.used_ms) = (page.is_finished, now_ms);
        let messages = record.messages.iter().map(|(_, body)| body.len() + MESSAGE_OVERHEAD_BYTES);
        let ids = record.ids.keys().map(|id| id.len() + ID_OVERHEAD_BYTES);
        record.bytes = messages.chain(ids).sum();
        if self.records.get(key).is_some_and(|known| (known.epoch, known.newest) >= (record.epoch, record.newest)) {
            return;
        }
        drop(self.delete(key));
        self.given.remove(key);
        self.account(app, record.bytes(key), 0);
        let key = Arc::new(key.clone());
        let numbers = (record.oldest()..=record.newest).map(|number| Position { epoch: record.epoch, number });
        let order = &mut self.apps.entry(app.clone()).or_default().order;
        order.extend(numbers.map(|position| (key.clone(), position)));
        self.last_epoch = self.last_epoch.max(record.epoch);
        self.records.insert(key, record);
        self.keep_budget(now_ms);
    }

    fn find_or_begin(&mut self, key: &RecordKey, app: &Signer, now_ms: u64) -> Arc<RecordKey> {
        if let Some((known, _)) = self.records.get_key_value(key) {
            return known.clone();
        }
        let random = u64::from(u16::from_ne_bytes(random_bytes()));
        self.last_epoch = ((now_ms << u16::BITS) | random).max(self.last_epoch + 1);
        let (key, record) = (Arc::new(key.clone()), MessageRecord::new(app.clone(), self.last_epoch));
        self.account(app, record.bytes(&key), 0);
        self.records.insert(key.clone(), record);
        key
    }

    fn account(&mut self, app: &Signer, added: usize, freed: usize) {
        self.bytes = (self.bytes + added).saturating_sub(freed);
        let messages = self.apps.entry(app.clone()).or_default();
        messages.bytes = (messages.bytes + added).saturating_sub(freed);
        if messages.bytes == 0 {
            self.apps.remove(app);
        }
    }

    /// Removes the oldest messages of the app with the most bytes, until the budget is kept.
    fn keep_budget(&mut self, now_ms: u64) {
        while self.bytes > self.max_bytes {
            let Some((app, messages)) = self.apps.iter_mut().max_by_key(|(_, messages)| messages.bytes) else { return };
            let app = app.clone();
            let Some((key, position)) = messages.order.pop_front() else {
                // All that is left of the app are positions, of records without messages.
                let of_app = self.records.iter().filter(|(_, record)| record.app == app);
                let empty: Vec<_> = of_app.map(|(key, _)| key.clone()).collect();
                empty.iter().for_each(|key| drop(self.delete(key)));
                if empty.is_empty() {
                    return;
                }
                continue;
            };
            let Some(record) = self.records.get_mut(&key).filter(|record| record.epoch == position.epoch) else {
                continue;
            };
            let freed = record.lose_up_to(position.number, now_ms);
            let is_empty = record.messages.is_empty();
            self.account(&app, 0, freed);
            if is_empty {
                drop(self.delete(&key));
            }
        }
    }
}

impl MessageRecord {
    fn new(app: Signer, epoch: u64) -> Self {
        let terms = HistoryTerms { messages: usize::MAX, age: std::time::Duration::MAX };
        let (messages, ids, id_order) = (VecDeque::new(), HashMap::new(), VecDeque::new());
        Self { app, epoch, newest: 0, used_ms: 0, terms, is_finished: false, bytes: 0, messages, ids, id_order }
    }

    fn bytes(&self, key: &RecordKey) -> usize {
        RECORD_OVERHEAD_BYTES + key.1.name.len() + self.bytes
    }

    fn summary(&self, key: &RecordKey) -> RecordSummary {
        RecordSummary {
            set: key.1.clone(),
            messages: self.messages.len() as u64,
            bytes: self.bytes(key) as u64,
            newest: Position { epoch: self.epoch, number: self.newest },
            used_ms: self.used_ms,
            is_finished: self.is_finished,
        }
    }

    /// Number of the oldest kept message, or of the next one.
    fn oldest(&self) -> u64 {
        (self.newest + 1).saturating_sub(self.messages.len() as u64)
    }

    fn keeps(&self, position: Position) -> bool {
        self.epoch == position.epoch && self.oldest() <= position.number
    }

    /// Removes messages and ids that are no longer kept. Returns their bytes.
    fn trim(&mut self, now_ms: u64) -> usize {
        let age_ms = u64::try_from(self.terms.age.as_millis()).unwrap_or(u64::MAX);
        let excess = self.messages.len().saturating_sub(self.terms.messages);
        let is_old = |at_ms: u64| at_ms.saturating_add(age_ms) < now_ms;
        let old = self.messages.iter().take_while(|(at_ms, _)| is_old(*at_ms)).count();
        let lost = (self.oldest() + excess.max(old) as u64).saturating_sub(1);
        self.lose_up_to(lost, now_ms)
    }

    /// Removes messages up to a number, and the old ids of missing messages. Returns their bytes.
    fn lose_up_to(&mut self, number: u64, now_ms: u64) -> usize {
        let mut freed = 0;
        while self.oldest() <= number
            && let Some((_, body)) = self.messages.pop_front()
        {
            freed += body.len() + MESSAGE_OVERHEAD_BYTES;
        }
        let oldest = self.oldest();
        let is_old = |sent: &SentId| sent.at_ms + ID_KEPT_MS < now_ms;
        while let Some(id) = self.id_order.front()
            && let is_crowded = self.ids.len().saturating_sub(self.messages.len()) > IDS_SPARE_MAX
            && self.ids.get(id).is_none_or(|sent| sent.number < oldest && (is_old(sent) || is_crowded))
        {
            freed += id.len() + ID_OVERHEAD_BYTES;
            self.ids.remove(id);
            self.id_order.pop_front();
        }
        self.bytes = self.bytes.saturating_sub(freed);
        freed
    }

    fn page(&self, start: RecordStart) -> RecordPage {
        let (oldest, newest) = (self.oldest(), self.newest);
        let (after, reset) = match start {
            RecordStart::Newest => (newest, None),
            RecordStart::Oldest => (oldest - 1, None),
            RecordStart::Last(count) => (newest.saturating_sub(count.into()).max(oldest - 1), None),
            // A follower from before the first message.
            RecordStart::After(0, _) => (oldest - 1, (oldest > 1).then_some(EXPIRED)),
            RecordStart::After(epoch, number) if epoch != self.epoch || number > newest => (oldest - 1, Some(LOST)),
            RecordStart::After(_, number) if number + 1 < oldest => (oldest - 1, Some(EXPIRED)),
            RecordStart::After(_, number) => (number, None),
        };
        let (mut bytes, skipped) = (0, usize::try_from(after + 1 - oldest).unwrap_or(usize::MAX));
        let kept = (after + 1..).zip(self.messages.iter().skip(skipped));
        let fitting = kept.take_while(|(number, (_, body))| {
            bytes += body.len() + MESSAGE_OVERHEAD_BYTES;
            bytes <= PAGE_MAX_BYTES || *number == after + 1
        });
        RecordPage {
            reset: reset.map(Into::into),
            epoch: self.epoch,
            after,
            newest,
            oldest: (!self.messages.is_empty()).then_some(oldest),
            is_finished: self.is_finished,
            messages: fitting
                .map(|(number, (at_ms, body))| RecordedMessage { number, at_ms: *at_ms, body: body.clone() })
                .collect(),
            ids: Vec::new(),
        }
    }
}

/// Hash of a message, the same at each node and version.
fn hash_of(body: &[u8]) -> u64 {
    let hash = digest(&SHA256, body);
    hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TERMS: HistoryTerms = HistoryTerms { messages: 3, age: Duration::from_secs(10) };

    fn key(name: &str) -> RecordKey {
        ("chat".into(), RecordedSet::group(name))
    }

    fn append(log: &mut MessageLog, name: &str, text: &'static str, now_ms: u64) -> Position {
        append_of(log, ("", name), (None, text), now_ms).unwrap().position
    }

    fn append_of(
        log: &mut MessageLog,
        (app, name): (&str, &str),
        (id, text): (Option<&str>, &'static str),
        now_ms: u64,
    ) -> Result<Appended, RecordRefused> {
        let id = id.map(ByteString::from);
        log.append(
            &key(name),
            (&Signer::App(app.into()), TERMS),
            (id.as_ref(), Bytes::from_static(text.as_bytes())),
            now_ms,
        )
    }

    fn texts(page: &RecordPage) -> String {
        let texts = page.messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned());
        texts.collect::<Vec<_>>().join(" ")
    }

    fn read(log: &mut MessageLog, start: RecordStart, now_ms: u64) -> (String, Option<String>) {
        let page = log.read(&key("g"), start, now_ms);
        let numbers: Vec<_> = page.messages.iter().map(|message| message.number).collect();
        assert!(numbers.iter().zip(page.after + 1..).all(|(number, expected)| *number == expected), "{page:?}");
        (texts(&page), page.reset.map(|reset| reset.to_string()))
    }

    #[test]
    fn a_read_begins_where_the_reader_wants() {
        let mut log = MessageLog::new(1 << 20);
        let first = append(&mut log, "g", "a", 0);
        for text in ["b", "c"] {
            append(&mut log, "g", text, 0);
        }
        let plain = |text: &str| (text.to_owned(), None);
        assert_eq!(read(&mut log, RecordStart::Oldest, 0), plain("a b c"));
        assert_eq!(read(&mut log, RecordStart::Newest, 0), plain(""));
        assert_eq!(read(&mut log, RecordStart::Last(2), 0), plain("b c"));
        assert_eq!(read(&mut log, RecordStart::Last(9), 0), plain("a b c"));
        assert_eq!(read(&mut log, RecordStart::after(first), 0), plain("b c"));
        assert_eq!(read(&mut log, RecordStart::After(0, 0), 0), plain("a b c"), "a follower from before the first");
    }

    #[test]
    fn messages_are_kept_up_to_a_number_and_an_age_and_a_reader_behind_them_gets_a_reset() {
        let mut log = MessageLog::new(1 << 20);
        let first = append(&mut log, "g", "a", 0);
        let after = RecordStart::after(first);
        for text in ["b", "c", "d"] {
            append(&mut log, "g", text, 5_000);
        }
        assert_eq!(read(&mut log, after, 0), ("b c d".into(), None), "the first is gone, and was read");
        append(&mut log, "g", "e", 14_000);
        let expired = |text: &str| (text.to_owned(), Some("expired".to_owned()));
        assert_eq!(read(&mut log, after, 14_000), expired("c d e"));
        assert_eq!(read(&mut log, after, 16_000), expired("e"));
        assert_eq!(read(&mut log, after, 60_000), expired(""));
        assert_eq!(read(&mut log, RecordStart::After(0, 0), 60_000), expired(""));
        assert!(log.bytes() < 2 * RECORD_OVERHEAD_BYTES, "{}", log.bytes());
    }

    #[test]
    fn a_sweep_frees_old_messages_of_unused_records_and_in_the_end_the_records() {
        let mut log = MessageLog::new(1 << 20);
        let last = append(&mut log, "g", "a", 0);
        let whole = log.bytes();
        log.sweep(5_000);
        assert_eq!(log.bytes(), whole);
        log.sweep(20_000);
        assert!(log.bytes() < whole, "nobody has read it");
        assert_eq!(read(&mut log, RecordStart::after(last), 20_000), (String::new(), None), "the position stays");
        log.sweep(EMPTY_KEPT_MS);
        assert_eq!((log.bytes(), log.count()), (0, 0));
    }

    #[test]
    fn a_position_of_another_epoch_or_of_the_future_is_a_loss() {
        let mut log = MessageLog::new(1 << 20);
        let first = append(&mut log, "g", "a", 0);
        let lost = ("a".to_owned(), Some("lost".to_owned()));
        for start in [RecordStart::after(first.next()), RecordStart::After(first.epoch + 1, 1)] {
            assert_eq!(read(&mut log, start, 0), lost);
        }
        log.delete(&key("g")).unwrap();
        assert_eq!(read(&mut log, RecordStart::after(first), 0), (String::new(), Some("lost".into())));
        assert_eq!((log.bytes(), log.count(), log.delete(&key("g"))), (0, 0, Err(RecordRefused::Missing)));
        assert!(append(&mut log, "g", "b", 0).epoch > first.epoch);
        assert_eq!(read(&mut log, RecordStart::after(first), 0), ("b".into(), Some("lost".into())));
    }

    #[test]
    fn a_repeated_id_is_recorded_once_and_another_message_with_it_is_refused() {
        let mut log = MessageLog::new(1 << 20);
        let mut send = |text, now_ms| append_of(&mut log, ("", "g"), (Some("1"), text), now_ms);
        let first = send("a", 0).unwrap();
        assert_eq!(send("a", 100_000), Ok(Appended { is_repeated: true, ..first }), "the message has expired");
        assert_eq!(send("b", 0), Err(RecordRefused::OtherMessage));
        append(&mut log, "g", "x", 130_000);
        let again = append_of(&mut log, ("", "g"), (Some("1"), "a"), 130_000).unwrap();
        assert!(!again.is_repeated && again.position.number == 3);
    }

    #[test]
    fn a_finished_record_takes_nothing_until_it_is_deleted() {
        let mut log = MessageLog::new(1 << 20);
        assert_eq!(log.finish(&key("g")), Err(RecordRefused::Missing));
        let last = append_of(&mut log, ("", "g"), (Some("1"), "a"), 0).unwrap();
        assert_eq!(log.finish(&key("g")), Ok(last.position));
        assert!(log.read(&key("g"), RecordStart::Oldest, 0).is_finished);
        let finished = log.read(&key("g"), RecordStart::Oldest, 0);
        assert_eq!(append_of(&mut log, ("", "g"), (None, "b"), 0), Err(RecordRefused::Finished));
        assert_eq!(log.read(&key("g"), RecordStart::Oldest, 0), finished, "a refused message has no number");
        assert!(append_of(&mut log, ("", "g"), (Some("1"), "a"), 0).unwrap().is_repeated);
        log.delete(&key("g")).unwrap();
        append(&mut log, "g", "b", 0);
    }

    #[test]
    fn above_the_budget_the_largest_app_loses_its_oldest_messages() {
        const LARGE: &str = match std::str::from_utf8(&[b'x'; 1000]) {
            Ok(text) => text,
            Err(_) => "",
        };
        let mut log = MessageLog::new(20_000);
        let small = append_of(&mut log, ("news", "n"), (None, "small"), 0).unwrap().position;
        for group in 0..100 {
            append_of(&mut log, ("shop", &format!("g{group}")), (None, LARGE), 0).unwrap();
            assert!(log.bytes() <= 20_000, "{}", log.bytes());
        }
        assert_eq!(texts(&log.read(&key("n"), RecordStart::Oldest, 0)), "small");
        assert_eq!(texts(&log.read(&key("g99"), RecordStart::Oldest, 0)), LARGE);
        assert_eq!(log.read(&key("n"), RecordStart::after(small), 0).reset, None);
        let too_large = append_of(&mut MessageLog::new(1000), ("", "g"), (None, LARGE), 0);
        assert!(matches!(too_large, Err(RecordRefused::TooLarge { max: 1000, .. })), "{too_large:?}");
    }

    #[test]
    fn a_record_is_handed_over_whole_with_its_ids_and_the_end() {
        let (mut old, mut new) = (MessageLog::new(1 << 24), MessageLog::new(1 << 24));
        let terms = HistoryTerms { messages: 100, age: Duration::from_secs(100) };
        let send = |log: &mut MessageLog, id: &str, bytes| {
            log.append(&key("g"), (&Signer::Fleet, terms), (Some(&id.into()), vec![7; bytes].into()), 0)
        };
        for number in 0..9 {
            send(&mut old, &number.to_string(), PAGE_MAX_BYTES / 4).unwrap();
        }
        old.finish(&key("g")).unwrap();
        let (whole, mut after, mut parts) = (old.read(&key("g"), RecordStart::Last(1), 0), 0, 0);
        while after < 9 {
            let part = old.export(&key("g"), (after, false), (usize::MAX, 0)).unwrap();
            after += part.messages.len() as u64;
            parts += 1;
            new.import(&key("g"), (&Signer::Fleet, terms), part, 0);
            assert_eq!(new.contains(&key("g")), after == 9);
        }
        assert!(parts > 1 && old.hand_over(&key("g"), 9, ("boot", 0)));
        assert_eq!(new.read(&key("g"), RecordStart::Last(1), 0), whole);
        assert!(send(&mut new, "8", PAGE_MAX_BYTES / 4).unwrap().is_repeated);
        assert_eq!(send(&mut new, "9", 1), Err(RecordRefused::Finished));
        assert!(matches!(send(&mut old, "9", 1), Err(RecordRefused::Moving(_))), "the other node has it");
        assert_eq!((old.bytes(), old.count()), (0, 0));
    }

    #[test]
    fn a_part_for_the_store_has_few_bytes_and_the_ids_of_its_messages() {
        let mut log = MessageLog::new(1 << 20);
        let terms = HistoryTerms { messages: 10, ..TERMS };
        for number in 0..7 {
            let (id, body) = (ByteString::from(number.to_string()), Bytes::from_static(b"x"));
            log.append(&key("g"), (&Signer::Fleet, terms), (Some(&id), body), 0).unwrap();
        }
        let (mut after, mut parts) = (0, Vec::new());
        while after < 7 {
            let part = log.export(&key("g"), (after, true), (1000, 0)).unwrap();
            after = part.messages.last().unwrap().number;
            parts.push((part.messages.len(), part.ids.iter().map(|id| id.id.to_string()).collect::<Vec<_>>().concat()));
        }
        assert_eq!(parts, [(3, "012".into()), (3, "345".into()), (1, "6".into())]);
        assert_eq!(log.export(&key("g"), (0, true), (1, 0)).unwrap().messages.len(), 1, "one at least");
    }

    #[test]
    fn ids_beyond_the_messages_are_kept_for_a_while_and_up_to_a_number() {
        let mut log = MessageLog::new(1 << 24);
        let terms = HistoryTerms { messages: 1, ..TERMS };
        let mut send = |id: usize| {
            let (id, body) = (Some(ByteString::from(id.to_string())), Bytes::from_static(b"x"));
            log.append(&key("g"), (&Signer::Fleet, terms), (id.as_ref(), body), 0).unwrap().is_repeated
        };
        for id in 0..=IDS_SPARE_MAX + 1 {
            assert!(!send(id));
        }
        assert!(send(2) && !send(0), "the oldest is gone");
    }

    #[test]
    fn of_two_records_of_a_set_the_one_that_began_last_stays() {
        let (mut old, mut new) = (MessageLog::new(1 << 20), MessageLog::new(1 << 20));
        append(&mut old, "g", "a", 0);
        append(&mut new, "g", "b", 1_000);
        let part = old.export(&key("g"), (0, false), (usize::MAX, 0)).unwrap();
        new.import(&key("g"), (&Signer::Fleet, TERMS), part, 0);
        assert_eq!(read(&mut new, RecordStart::Oldest, 1_000), ("b".into(), None));
        let part = new.export(&key("g"), (0, false), (usize::MAX, 1_000)).unwrap();
        old.import(&key("g"), (&Signer::Fleet, TERMS), part, 1_000);
        assert_eq!(read(&mut old, RecordStart::Oldest, 1_000), ("b".into(), None));
        assert_eq!(old.bytes(), new.bytes());
    }

    #[test]
    fn a_page_has_a_limited_size_and_at_least_one_message() {
        let (mut log, terms) = (MessageLog::new(1 << 24), HistoryTerms { messages: 100, ..TERMS });
        let mut send = |bytes| {
            log.append(&key("g"), (&Signer::Fleet, terms), (None, vec![0; bytes].into()), 0).unwrap();
        };
        send(PAGE_MAX_BYTES + 1);
        (0..10).for_each(|_| send(PAGE_MAX_BYTES / 4));
        let page = log.read(&key("g"), RecordStart::Oldest, 0);
        assert_eq!((page.messages.len(), page.newest), (1, 11));
        let rest = log.read(&key("g"), RecordStart::After(page.epoch, 1), 0);
        assert_eq!((rest.messages.len(), rest.after), (3, 1));
    }
}
