//! History of closed and refused client connections: the latest ones of each shard, for some minutes.
//!
//! ```text
//!   remember ─► open: a few records ──full──► packed: │ block │ block │ block │ … in one buffer, oldest first
//!   find ─────► hashes of all ids, newest first ─► unpacks the matching block
//! ```
//!
//! Records of one node are similar (hub, app server, browser), so packing a block reduces it to a quarter.
//! Blocks are stored consecutively in one buffer: individual allocations would pin pages used by earlier
//! connections, and the memory of a reconnect storm would never be released.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use trunkline_protocol::cause::Cause;
pub(crate) use trunkline_protocol::id::short;
use trunkline_protocol::manifest::{REMOTE_HEADER, Transport, USER_ID_CLAIM};
use trunkline_protocol::service::{OpenConnection, header};

use crate::clock::unix_ms;
use crate::metrics::ClientProtocol;

/// Retention time of a closed connection.
pub(crate) const REMEMBERED_MS: u64 = 10 * 60 * 1000;

/// Maximum number of closed connections kept by a node.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Maximum total size of their packed records.
const REMEMBERED_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Number of records per packed block; twice as many would save 4 %.
const BLOCK_RECORDS: usize = 32;

/// Unpacked size at which a block is full.
const BLOCK_BYTES: usize = 8 * 1024;

/// Minimum number of blocks for which a history has room, since the oldest records are evicted by block.
const BLOCKS_MIN: usize = 4;

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
    pub speech: Option<ClientProtocol>,
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
    /// LZ4 blocks, oldest first.
    packed: VecDeque<u8>,
    blocks: VecDeque<HistoryBlock>,
    /// Newest records in MessagePack.
    open: Vec<u8>,
    open_block: HistoryBlock,
    /// Hash of each record's id, oldest first.
    id_hashes: VecDeque<u32>,
}

/// Block of records, oldest first.
#[derive(Debug, Default, Clone, Copy)]
struct HistoryBlock {
    records: usize,
    newest_ms: u64,
    /// Unpacked and packed size, set when packed.
    bytes: usize,
    packed_bytes: usize,
}

impl<'a> PastConnection<'a> {
    /// Record of a connection that closes now.
    #[must_use]
    pub(crate) fn new(id: &'a str, cause: Cause, detail: Option<&'a str>) -> Self {
        Self {
            id: short(id).into(),
            hub: None,
            cause,
            detail: detail.map(cut_text),
            transport: None,
            speech: None,
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
    pub(crate) fn of(self, open: &'a OpenConnection) -> Self {
        let header = |wanted: &str| header(&open.headers, wanted).map(|value| cut_text(value));
        let user = open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, user)| cut_text(user));
        Self { user, remote: header(REMOTE_HEADER), user_agent: header("user-agent"), ..self }
    }
}

impl History {
    #[must_use]
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
        ring.push(self.id_hash(&past.id), past.closed_ms, &record);
        if self.room.ends(ring.open_block.records, ring.open.len()) {
            ring.pack();
        }
    }

    /// Evicts expired records and releases their memory.
    pub(crate) fn evict_old(&self) {
        self.ring().evict_old(unix_ms().saturating_sub(REMEMBERED_MS));
    }

    /// Last closed connection with this id, unless expired.
    pub(crate) fn find(&self, id: &str) -> Option<PastConnection<'static>> {
        let id = short(id);
        let past = self.ring().find(id, self.id_hash(id))?;
        (past.closed_ms >= unix_ms().saturating_sub(REMEMBERED_MS)).then_some(past)
    }

    /// Half of a hash. After a match the id itself is compared.
    fn id_hash(&self, id: &str) -> u32 {
        (self.hasher.hash_one(id) >> 32) as u32
    }

    // Short operations under the lock (append, pack, look up); none panics.
    fn ring(&self) -> MutexGuard<'_, HistoryRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryRoom {
    /// Whether a block with this many records and bytes is full.
    fn ends(self, records: usize, bytes: usize) -> bool {
        records >= BLOCK_RECORDS.min(self.records / BLOCKS_MIN) || bytes >= BLOCK_BYTES.min(self.bytes / BLOCKS_MIN)
    }
}

impl HistoryRing {
    fn push(&mut self, id_hash: u32, closed_ms: u64, record: &[u8]) {
        self.open.extend_from_slice(record);
        self.open_block.records += 1;
        self.open_block.newest_ms = self.open_block.newest_ms.max(closed_ms);
        self.id_hashes.push_back(id_hash);
    }

    fn pack(&mut self) {
        let packed = lz4_flex::compress(&self.open);
        let block = std::mem::take(&mut self.open_block);
        self.blocks.push_back(HistoryBlock { bytes: self.open.len(), packed_bytes: packed.len(), ..block });
        if self.packed.capacity() < self.packed.len() + packed.len() {
            self.packed.reserve_exact(packed.len().max(GROWS_BY_BYTES));
        }
        self.packed.extend(packed);
        self.open.clear();
    }

    /// Newest record of this id. Scans all hashes, which takes some microseconds; an index would cost more per
    /// close than it saves for rare queries.
    fn find(&self, id: &str, id_hash: u32) -> Option<PastConnection<'static>> {
        let mut hashes = self.id_hashes.iter().rev();
        let mut may_have =
            |block: &HistoryBlock| hashes.by_ref().take(block.records).filter(|own| **own == id_hash).count() > 0;
        if may_have(&self.open_block)
            && let Some(past) = newest_of(id, &self.open)
        {
            return Some(past);
        }
        let mut end = self.packed.len();
        self.blocks.iter().rev().find_map(|block| {
            let packed = end - block.packed_bytes..end;
            end = packed.start;
            may_have(block).then(|| newest_of(id, &self.unpack(packed, block)?))?
        })
    }

    fn unpack(&self, packed: Range<usize>, block: &HistoryBlock) -> Option<Vec<u8>> {
        let packed: Vec<u8> = self.packed.range(packed).copied().collect();
        lz4_flex::decompress(&packed, block.bytes).ok()
    }

    fn evict_before(&mut self, closed_ms: u64) {
        while self.blocks.front().is_some_and(|oldest| oldest.newest_ms < closed_ms) {
            self.evict_oldest();
        }
        if self.blocks.is_empty() && self.open_block.newest_ms < closed_ms {
            self.open.clear();
            self.open_block = HistoryBlock::default();
            self.id_hashes.clear();
        }
    }

    fn evict_old(&mut self, closed_ms: u64) {
        self.evict_before(closed_ms);
        // Not for small gaps, or the buffers would grow again with the next records.
        if self.id_hashes.len() < self.id_hashes.capacity() / SHRINKS_BELOW {
            self.packed.shrink_to_fit();
            self.open.shrink_to_fit();
            self.blocks.shrink_to_fit();
            self.id_hashes.shrink_to_fit();
        }
    }

    /// Evicts the oldest records until there is room for one more of this size.
    fn make_room(&mut self, room: HistoryRoom, bytes: usize) {
        let is_full = |ring: &Self| {
            ring.id_hashes.len() >= room.records || ring.packed.len() + ring.open.len() + bytes > room.bytes
        };
        while is_full(self) && !self.blocks.is_empty() {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some(oldest) = self.blocks.pop_front() {
            self.packed.drain(..oldest.packed_bytes);
            self.id_hashes.drain(..oldest.records);
        }
    }
}

/// Newest record of this id in these records.
fn newest_of(id: &str, mut records: &[u8]) -> Option<PastConnection<'static>> {
    let mut next = || rmp_serde::from_read::<_, PastConnection<'static>>(&mut records).ok();
    iter::from_fn(&mut next).filter(|past| past.id == id).last()
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
        assert_eq!(ring.id_hashes.len(), 2);
        assert_eq!(ring.packed.len(), ring.blocks.iter().map(|block| block.packed_bytes).sum::<usize>());
    }

    #[test]
    fn each_record_is_found_in_whatever_block_it_lies_and_of_equal_ids_the_newest() {
        let (ring, now) = (History::with_room(100, REMEMBERED_MAX_BYTES), unix_ms());
        let mut closed = Vec::new();
        for number in 0..400_u64 {
            let id = format!("client-{}", number * number % 300);
            ring.remember(&past(&id, Cause::Drained, now + number));
            closed.push((id, now + number));
            let kept = ring.ring().id_hashes.len();
            assert!(kept == closed.len() || (76..=100).contains(&kept), "{kept}: but for a block of 25 there are all");
            let (gone, there) = closed.split_at(closed.len() - kept);
            for (id, closed_ms) in gone.iter().rev().take(30).chain(there) {
                let newest = there.iter().rev().find(|(own, _)| own == id);
                let found = ring.find(id).map(|past| past.closed_ms);
                assert_eq!(found, newest.map(|(_, newest_ms)| *newest_ms), "{id} of {closed_ms}, after {number}");
            }
        }
    }

    #[test]
    fn a_whole_history_of_browsers_takes_less_than_a_mebibyte() {
        let (ring, now) = (History::new(1), unix_ms());
        let agent =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        for number in 0..2 * REMEMBERED_MAX as u64 {
            // As random as real ids, for realistic packing.
            let id = format!("{:016x}{:06x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number * 7919 % 0xff_ffff);
            ring.remember(&PastConnection {
                hub: Some("/chat".into()),
                transport: Some(Transport::WebSockets),
                speech: Some(ClientProtocol::Json),
                user: Some(format!("user-{}", number * 31 % 10_000).into()),
                remote: Some(format!("10.1.{}.{}:{}", number % 256, number / 7 % 256, 1024 + number % 60_000).into()),
                user_agent: Some(agent.into()),
                app_server: Some("app-1-4f3c2b1a".into()),
                opened_ms: Some(now - 1_000 * number),
                ..past(&id, Cause::SocketEnded, now + number / 10)
            });
        }
        let ring = ring.ring();
        assert!(ring.id_hashes.len() > REMEMBERED_MAX - BLOCK_RECORDS, "{}", ring.id_hashes.len());
        let bytes = ring.packed.capacity() + ring.open.capacity() + 4 * ring.id_hashes.capacity();
        assert!(bytes < 1 << 20, "{bytes}");
    }

    #[test]
    fn a_close_record_expires_after_some_minutes() {
        let (ring, now) = (History::new(1), unix_ms());
        ring.remember(&past("old", Cause::Drained, now - REMEMBERED_MS - 1_000));
        assert!(ring.find("old").is_none());
        ring.remember(&past("new", Cause::Drained, now));
        assert_eq!(ring.ring().id_hashes.len(), 1, "and its room is free");
    }

    #[test]
    fn what_is_too_long_ago_leaves_no_memory_behind() {
        let (ring, now) = (History::with_room(1_000, REMEMBERED_MAX_BYTES), unix_ms());
        let remember =
            |closed_ms| (0..100).for_each(|n| ring.remember(&past(&n.to_string(), Cause::Drained, closed_ms)));
        let room = || {
            let ring = ring.ring();
            (ring.packed.capacity(), ring.open.capacity(), ring.id_hashes.capacity())
        };
        remember(now);
        let kept = room();
        ring.evict_old();
        assert_eq!(room(), kept, "all of them are still found");
        ring.ring().evict_old(now + 1);
        assert_eq!(room(), (0, 0, 0));
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
            assert!(ring.packed.len() + ring.open.len() <= 1_000);
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
            speech: Some(ClientProtocol::MessagePack),
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
