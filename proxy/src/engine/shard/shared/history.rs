//! History of closed and refused client connections: the latest ones of each shard, for some minutes.
//!
//! Records share one buffer: individual allocations would pin pages used by earlier connections, and never release the
//! memory of a reconnect storm.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use trunkline_protocol::cause::Cause;
pub(crate) use trunkline_protocol::id::short;
use trunkline_protocol::manifest::{REMOTE_HEADER, Transport};
use trunkline_protocol::service::{OpenConnection, header};

use crate::ground::auth::user_in_claims;
use crate::ground::clock::unix_ms;
use crate::ground::metrics::ClientProtocol;

/// Retention time of a closed connection.
pub(crate) const REMEMBERED_MS: u64 = 10 * 60 * 1000;

/// Maximum number of closed connections kept by a node.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Maximum total size of their records.
const REMEMBERED_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Growth of a full buffer. Doubling would leave most of it empty.
const GROWS_BY_BYTES: usize = 64 * 1024;

/// Fraction of its capacity below which a history shrinks.
const SHRINKS_BELOW: usize = 4;

/// Maximum length of texts from clients and app servers.
const TEXT_MAX_BYTES: usize = 512;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PastConnection<'a> {
    /// First part of the id; the rest may be secret.
    pub id: Cow<'a, str>,
    /// Hub; `None` if refused before it was determined.
    pub hub: Option<Cow<'a, str>>,
    #[serde(serialize_with = "write_cause", deserialize_with = "read_cause")]
    pub cause: Cause,
    /// Detail for people, such as the violated rule.
    pub detail: Option<Cow<'a, str>>,
    pub transport: Option<Transport>,
    /// Hub protocol; `None` before the hub handshake.
    pub protocol: Option<ClientProtocol>,
    pub user: Option<Cow<'a, str>>,
    pub remote: Option<Cow<'a, str>>,
    pub user_agent: Option<Cow<'a, str>>,
    /// Instance id of the app server.
    pub app_server: Option<Cow<'a, str>>,
    /// Open time in milliseconds since 1970; `None` if it never opened.
    pub opened_ms: Option<u64>,
    pub closed_ms: u64,
}

#[derive(Debug)]
pub(crate) struct History {
    room: HistoryRoom,
    hasher: RandomState,
    ring: Mutex<HistoryRing>,
}

/// Limits of a history.
#[derive(Debug, Clone, Copy)]
struct HistoryRoom {
    records: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct HistoryRing {
    /// Records in MessagePack, oldest first.
    bytes: VecDeque<u8>,
    records: VecDeque<HistoryRecord>,
}

#[derive(Debug, Clone, Copy)]
struct HistoryRecord {
    id_hash: u64,
    closed_ms: u64,
    bytes: usize,
}

impl<'a> PastConnection<'a> {
    /// Record of a connection that closes now.
    pub(crate) fn new(id: &'a str, cause: Cause, detail: Option<&'a str>) -> Self {
        Self {
            id: short(id).into(),
            hub: None,
            cause,
            detail: detail.map(cut_text),
            transport: None,
            protocol: None,
            user: None,
            remote: None,
            user_agent: None,
            app_server: None,
            opened_ms: None,
            closed_ms: unix_ms(),
        }
    }

    /// Adds client data from the opening frame.
    #[must_use]
    pub(crate) fn with_opening(self, open: &'a OpenConnection) -> Self {
        let header = |wanted: &str| header(&open.headers, wanted).map(|value| cut_text(value));
        let user = user_in_claims(&open.claims).map(cut_text);
        Self { user, remote: header(REMOTE_HEADER), user_agent: header("user-agent"), ..self }
    }
}

impl History {
    pub(crate) fn new(shards: usize) -> Self {
        let shards = shards.max(1);
        Self::with_room((REMEMBERED_MAX / shards).max(1), REMEMBERED_MAX_BYTES / shards)
    }

    fn with_room(records: usize, bytes: usize) -> Self {
        Self { room: HistoryRoom { records, bytes }, hasher: RandomState::new(), ring: Mutex::default() }
    }

    /// Adds a closed connection; evicts the oldest.
    pub(crate) fn remember(&self, past: &PastConnection<'_>) {
        // Only texts and numbers, which MessagePack always supports.
        let Ok(record) = rmp_serde::to_vec(past) else { return };
        let mut ring = self.ring();
        ring.evict_before(past.closed_ms.saturating_sub(REMEMBERED_MS));
        ring.make_room(self.room, record.len());
        ring.push(self.hasher.hash_one(&*past.id), past.closed_ms, &record);
    }

    /// Evicts expired records and releases their memory.
    pub(crate) fn evict_old(&self) {
        self.ring().evict_old(unix_ms().saturating_sub(REMEMBERED_MS));
    }

    /// Last closed connection with this id, unless expired.
    pub(crate) fn find(&self, id: &str) -> Option<PastConnection<'static>> {
        let id = short(id);
        let past = self.ring().find(id, self.hasher.hash_one(id))?;
        (past.closed_ms >= unix_ms().saturating_sub(REMEMBERED_MS)).then_some(past)
    }

    // Short operations under the lock, none of which panics.
    fn ring(&self) -> MutexGuard<'_, HistoryRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryRing {
    fn push(&mut self, id_hash: u64, closed_ms: u64, record: &[u8]) {
        if self.bytes.capacity() < self.bytes.len() + record.len() {
            self.bytes.reserve_exact(record.len().max(GROWS_BY_BYTES));
        }
        self.bytes.extend(record);
        self.records.push_back(HistoryRecord { id_hash, closed_ms, bytes: record.len() });
    }

    /// Newest record of this id. Scans all hashes, which takes some microseconds; an index would cost more per close
    /// than it saves for rare queries.
    fn find(&self, id: &str, id_hash: u64) -> Option<PastConnection<'static>> {
        let mut end = self.bytes.len();
        self.records.iter().rev().find_map(|record| {
            let range = end - record.bytes..end;
            end = range.start;
            if record.id_hash != id_hash {
                return None;
            }
            let bytes: Vec<u8> = self.bytes.range(range).copied().collect();
            rmp_serde::from_slice(&bytes).ok().filter(|past: &PastConnection<'_>| past.id == id)
        })
    }

    fn evict_before(&mut self, closed_ms: u64) {
        while self.records.front().is_some_and(|oldest| oldest.closed_ms < closed_ms) {
            self.evict_oldest();
        }
    }

    fn evict_old(&mut self, closed_ms: u64) {
        self.evict_before(closed_ms);
        // Not for small gaps, or the buffers would grow again with the next records.
        if self.records.len() < self.records.capacity() / SHRINKS_BELOW {
            self.bytes.shrink_to_fit();
            self.records.shrink_to_fit();
        }
    }

    /// Evicts the oldest records until there is room for one more of this size.
    fn make_room(&mut self, room: HistoryRoom, bytes: usize) {
        while self.records.len() >= room.records || self.bytes.len() + bytes > room.bytes {
            if !self.evict_oldest() {
                return;
            }
        }
    }

    /// Returns whether there was a record.
    fn evict_oldest(&mut self) -> bool {
        let Some(oldest) = self.records.pop_front() else { return false };
        self.bytes.drain(..oldest.bytes);
        true
    }
}

/// Truncates a text to the stored length.
fn cut_text(text: &str) -> Cow<'_, str> {
    let end = text.floor_char_boundary(TEXT_MAX_BYTES);
    text.get(..end).unwrap_or_default().into()
}

fn write_cause<S: Serializer>(cause: &Cause, serializer: S) -> Result<S::Ok, S::Error> {
    cause.label().serialize(serializer)
}

fn read_cause<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cause, D::Error> {
    let label = <Cow<'de, str>>::deserialize(deserializer)?;
    Cause::from_label(&label).ok_or_else(|| de::Error::custom("no cause has this label"))
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::id::ID_CHARS;

    use super::*;

    fn past(id: &str, cause: Cause, closed_ms: u64) -> PastConnection<'_> {
        PastConnection { closed_ms, ..PastConnection::new(id, cause, None) }
    }

    #[test]
    fn the_last_close_of_an_id_is_stored_and_the_oldest_records_are_evicted() {
        let (ring, now) = (History::with_room(2, REMEMBERED_MAX_BYTES), unix_ms());
        ring.remember(&past("a", Cause::Drained, now));
        ring.remember(&past("a", Cause::SlowClient, now));
        assert_eq!(ring.find("a").unwrap().cause, Cause::SlowClient);
        ring.remember(&past("b", Cause::Drained, now));
        assert_eq!(ring.find("a").unwrap().cause, Cause::SlowClient, "its older end has gone, and not this one");
        ring.remember(&past("c", Cause::Drained, now));
        assert!(ring.find("a").is_none());
        assert!(ring.find("b").is_some() && ring.find("c").is_some());
        let ring = ring.ring();
        assert_eq!(ring.records.len(), 2);
        assert_eq!(ring.bytes.len(), ring.records.iter().map(|record| record.bytes).sum::<usize>());
    }

    #[test]
    fn each_record_is_found_and_of_equal_ids_the_newest() {
        let (ring, now) = (History::with_room(100, REMEMBERED_MAX_BYTES), unix_ms());
        let mut closed = Vec::new();
        for number in 0..400_u64 {
            let id = format!("client-{}", number * number % 300);
            ring.remember(&past(&id, Cause::Drained, now + number));
            closed.push((id, now + number));
            let kept = ring.ring().records.len();
            assert_eq!(kept, closed.len().min(100));
            let (gone, there) = closed.split_at(closed.len() - kept);
            for (id, closed_ms) in gone.iter().rev().take(30).chain(there) {
                let newest = there.iter().rev().find(|(own, _)| own == id);
                let found = ring.find(id).map(|past| past.closed_ms);
                assert_eq!(found, newest.map(|(_, newest_ms)| *newest_ms), "{id} of {closed_ms}, after {number}");
            }
        }
    }

    #[test]
    fn a_whole_history_of_browsers_takes_less_than_two_and_a_half_mebibytes() {
        let (ring, now) = (History::new(1), unix_ms());
        let agent =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        for number in 0..2 * REMEMBERED_MAX as u64 {
            let id = format!("{:016x}{:06x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number * 7919 % 0xff_ffff);
            ring.remember(&PastConnection {
                hub: Some("/chat".into()),
                transport: Some(Transport::WebSockets),
                protocol: Some(ClientProtocol::Json),
                user: Some(format!("user-{}", number * 31 % 10_000).into()),
                remote: Some(format!("10.1.{}.{}:{}", number % 256, number / 7 % 256, 1024 + number % 60_000).into()),
                user_agent: Some(agent.into()),
                app_server: Some("app-1-4f3c2b1a".into()),
                opened_ms: Some(now - 1_000 * number),
                ..past(&id, Cause::SocketEnded, now + number / 10)
            });
        }
        let ring = ring.ring();
        assert!(ring.records.len() > REMEMBERED_MAX / 2, "{}", ring.records.len());
        let bytes = ring.bytes.capacity() + size_of::<HistoryRecord>() * ring.records.capacity();
        assert!(bytes < 5 << 19, "{bytes}");
    }

    #[test]
    fn a_close_record_expires_after_some_minutes() {
        let (ring, now) = (History::new(1), unix_ms());
        ring.remember(&past("old", Cause::Drained, now - REMEMBERED_MS - 1_000));
        assert!(ring.find("old").is_none());
        ring.remember(&past("new", Cause::Drained, now));
        assert_eq!(ring.ring().records.len(), 1, "and its room is free");
    }

    #[test]
    fn what_is_too_long_ago_leaves_no_memory_behind() {
        let (ring, now) = (History::with_room(1_000, REMEMBERED_MAX_BYTES), unix_ms());
        let remember =
            |closed_ms| (0..100).for_each(|n| ring.remember(&past(&n.to_string(), Cause::Drained, closed_ms)));
        let room = || {
            let ring = ring.ring();
            (ring.bytes.capacity(), ring.records.capacity())
        };
        remember(now);
        let kept = room();
        ring.evict_old();
        assert_eq!(room(), kept, "all of them are still found");
        ring.ring().evict_old(now + 1);
        assert_eq!(room(), (0, 0));
    }

    #[test]
    fn long_ids_and_texts_are_cut_where_a_character_ends() {
        let secret = "x".repeat(ID_CHARS) + "secret";
        assert_eq!(PastConnection::new(&secret, Cause::Drained, None).id.len(), ID_CHARS);
        assert_eq!(cut_text(&"ü".repeat(TEXT_MAX_BYTES)).len(), TEXT_MAX_BYTES);
        assert_eq!(cut_text(&format!("x{}", "ü".repeat(TEXT_MAX_BYTES))).len(), TEXT_MAX_BYTES - 1);
    }

    #[test]
    fn records_together_have_a_limit_in_bytes() {
        let (ring, now) = (History::with_room(1_000, 1_000), unix_ms());
        let user = "u".repeat(200);
        for number in 0..100 {
            let id = number.to_string();
            ring.remember(&PastConnection { user: Some(cut_text(&user)), ..past(&id, Cause::Drained, now) });
            let ring = ring.ring();
            assert!(ring.bytes.len() <= 1_000);
        }
        assert!(ring.find("50").is_none());
        let newest = ring.find("99").unwrap();
        assert_eq!((&*newest.id, newest.user.as_deref()), ("99", Some(&*user)));
    }

    #[test]
    fn a_record_is_read_back_whole() {
        let (ring, now) = (History::new(1), unix_ms());
        let whole = PastConnection {
            hub: Some("/chat".into()),
            detail: Some("a rule".into()),
            transport: Some(Transport::LongPolling),
            protocol: Some(ClientProtocol::MessagePack),
            remote: Some("10.0.0.1:1".into()),
            user_agent: Some("me".into()),
            app_server: Some("app-1".into()),
            opened_ms: Some(now - 5),
            ..past("whole", Cause::HubProtocol, now)
        };
        ring.remember(&whole);
        assert_eq!(format!("{:?}", ring.find("whole").unwrap()), format!("{whole:?}"));
    }
}
