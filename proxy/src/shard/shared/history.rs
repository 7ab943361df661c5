//! History of client connections that were closed or refused: the last of each shard, for some minutes.
//!
//! Records stand packed one behind the other in one buffer. As single allocations they would pin the pages that all the
//! connections before them have used, and the memory of a storm would never be given back.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use trunkline_protocol::cause::Cause;
pub(crate) use trunkline_protocol::id::short;
use trunkline_protocol::manifest::{REMOTE_HEADER, Transport, USER_ID_CLAIM};
use trunkline_protocol::service::{OpenConnection, header};

use crate::clock::unix_ms;
use crate::metrics::ClientProtocol;

/// Time for which a close is remembered.
pub(crate) const REMEMBERED_MS: u64 = 10 * 60 * 1000;

/// Maximum number of closes that a node remembers.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Maximum size of their records together.
const REMEMBERED_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Part of its room below which the buffer shrinks to its records.
const SHRINKS_BELOW: usize = 4;

/// Length to which texts of clients and app servers are cut.
const TEXT_MAX_BYTES: usize = 512;

/// Client connection that was closed, or refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PastConnection<'a> {
    /// First part of its id; the rest may be secret.
    pub id: Cow<'a, str>,
    /// Hub; `None` when it was refused before that was known.
    pub hub: Option<Cow<'a, str>>,
    #[serde(serialize_with = "write_cause", deserialize_with = "read_cause")]
    pub cause: Cause,
    /// Detail for people, such as the rule that was broken.
    pub detail: Option<Cow<'a, str>>,
    pub transport: Option<Transport>,
    /// Hub protocol; `None` before its hub handshake.
    pub speech: Option<ClientProtocol>,
    pub user: Option<Cow<'a, str>>,
    /// Address that the client connected from.
    pub remote: Option<Cow<'a, str>>,
    pub user_agent: Option<Cow<'a, str>>,
    /// Instance id of its app server.
    pub app_server: Option<Cow<'a, str>>,
    /// Time at which it opened, in milliseconds since 1970; `None` if it never did.
    pub opened_ms: Option<u64>,
    pub closed_ms: u64,
}

/// History of one shard.
#[derive(Debug)]
pub(crate) struct History {
    most: usize,
    most_bytes: usize,
    hasher: RandomState,
    ring: Mutex<HistoryRing>,
}

#[derive(Debug, Default)]
struct HistoryRing {
    /// Records in MessagePack, oldest first.
    packed: VecDeque<u8>,
    /// Bytes that have gone before the first one of `packed`.
    gone: u64,
    places: VecDeque<RecordPlace>,
}

/// Place of one record in the ring, and what it is found by.
#[derive(Debug)]
struct RecordPlace {
    id_hash: u64,
    closed_ms: u64,
    begin: u64,
    len: usize,
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

    /// Adds what the opening frame tells of the client.
    #[must_use]
    pub(crate) fn of(self, open: &'a OpenConnection) -> Self {
        let header = |wanted: &str| header(&open.headers, wanted).map(|value| cut_text(value));
        let user = open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, user)| cut_text(user));
        Self { user, remote: header(REMOTE_HEADER), user_agent: header("user-agent"), ..self }
    }
}

impl History {
    /// History of one of several shards, which share the room of their node.
    #[must_use]
    pub(crate) fn new(shards: usize) -> Self {
        let shards = shards.max(1);
        Self::with_room((REMEMBERED_MAX / shards).max(1), REMEMBERED_MAX_BYTES / shards)
    }

    fn with_room(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, hasher: RandomState::new(), ring: Mutex::default() }
    }

    /// Remembers a close; the oldest goes.
    pub(crate) fn remember(&self, past: &PastConnection<'_>) {
        // Texts and numbers: there is nothing in it that MessagePack has not.
        let Ok(record) = rmp_serde::to_vec(past) else { return };
        let id_hash = self.hasher.hash_one(&*past.id);
        let mut ring = self.ring();
        ring.forget_before(past.closed_ms.saturating_sub(REMEMBERED_MS));
        ring.make_room(self.most, self.most_bytes.saturating_sub(record.len()));
        ring.push(id_hash, past.closed_ms, &record);
    }

    /// Forgets closes that are too long ago, and gives their memory back.
    pub(crate) fn forget_old(&self) {
        self.ring().forget_old(unix_ms().saturating_sub(REMEMBERED_MS));
    }

    /// Last close of this id, unless it is too long ago.
    pub(crate) fn find(&self, id: &str) -> Option<PastConnection<'static>> {
        let id = short(id);
        let since = unix_ms().saturating_sub(REMEMBERED_MS);
        let record = self.ring().find(self.hasher.hash_one(id), since)?;
        rmp_serde::from_slice(&record).ok().filter(|past: &PastConnection<'_>| past.id == id)
    }

    // An append or a look-up under the lock; no code panics there.
    fn ring(&self) -> MutexGuard<'_, HistoryRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryRing {
    fn push(&mut self, id_hash: u64, closed_ms: u64, record: &[u8]) {
        let begin = self.gone + self.packed.len() as u64;
        self.packed.extend(record);
        self.places.push_back(RecordPlace { id_hash, closed_ms, begin, len: record.len() });
    }

    /// Copy of the newest record of this id. Looks at all places: that is some microseconds for a whole history, and an
    /// index would cost each close more than it saves the few who ask.
    fn find(&self, id_hash: u64, since_ms: u64) -> Option<Vec<u8>> {
        let place = self.places.iter().rev().find(|place| place.id_hash == id_hash)?;
        let begin = usize::try_from(place.begin - self.gone).ok()?;
        (place.closed_ms >= since_ms).then(|| self.packed.range(begin..begin + place.len).copied().collect())
    }

    fn forget_before(&mut self, closed_ms: u64) {
        while self.places.front().is_some_and(|oldest| oldest.closed_ms < closed_ms) {
            self.forget_oldest();
        }
    }

    fn forget_old(&mut self, closed_ms: u64) {
        self.forget_before(closed_ms);
        // Not for a few: then it would grow again with the next ones.
        if self.packed.len() < self.packed.capacity() / SHRINKS_BELOW {
            self.packed.shrink_to_fit();
            self.places.shrink_to_fit();
        }
    }

    /// Forgets the oldest until there is room for one more behind so many bytes.
    fn make_room(&mut self, most: usize, most_bytes: usize) {
        while self.places.len() >= most || (self.packed.len() > most_bytes && !self.places.is_empty()) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.places.pop_front() {
            self.packed.drain(..oldest.len);
            self.gone += oldest.len as u64;
        }
    }
}

/// Text, cut to the length that is kept.
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
    fn the_last_close_of_an_id_is_remembered_and_the_oldest_are_forgotten() {
        let (ring, now) = (History::with_room(2, REMEMBERED_MAX_BYTES), unix_ms());
        ring.remember(&past("a", Cause::Drained, now));
        ring.remember(&past("a", Cause::SlowClient, now));
        assert_eq!(ring.find("a").unwrap().cause, Cause::SlowClient);
        ring.remember(&past("b", Cause::Drained, now));
        assert_eq!(ring.find("a").unwrap().cause, Cause::SlowClient, "its older end has gone, and not this one");
        ring.remember(&past("c", Cause::Drained, now));
        assert!(ring.find("a").is_none());
        assert!(ring.find("b").is_some() && ring.find("c").is_some());
        let packed = ring.ring();
        assert_eq!(packed.places.len(), 2);
        assert_eq!(packed.packed.len(), packed.places.iter().map(|place| place.len).sum::<usize>());
    }

    #[test]
    fn after_some_minutes_a_close_is_forgotten() {
        let (ring, now) = (History::new(1), unix_ms());
        ring.remember(&past("old", Cause::Drained, now - REMEMBERED_MS - 1_000));
        assert!(ring.find("old").is_none());
        ring.remember(&past("new", Cause::Drained, now));
        assert_eq!(ring.ring().places.len(), 1, "and its room is free");
    }

    #[test]
    fn what_is_too_long_ago_leaves_no_memory_behind() {
        let (ring, now) = (History::with_room(1_000, REMEMBERED_MAX_BYTES), unix_ms());
        let remember =
            |closed_ms| (0..100).for_each(|n| ring.remember(&past(&n.to_string(), Cause::Drained, closed_ms)));
        let room = || {
            let ring = ring.ring();
            (ring.packed.capacity(), ring.places.capacity())
        };
        remember(now);
        let kept = room();
        ring.forget_old();
        assert_eq!(room(), kept, "all of them are still found");
        ring.ring().forget_old(now + 1);
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
            assert!(ring.ring().packed.len() <= 1_000);
        }
        assert!(ring.find("95").is_none());
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
