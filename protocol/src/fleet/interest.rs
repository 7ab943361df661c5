//! Interest: which messages may have recipients at a node, as known to the other nodes.
//!
//! ```text
//!  everyone of a hub ─┐
//!  a group of it ─────┼── hash ──► one of 65 536 buckets per hub ──► a bit: this node may have recipients
//!  a user of it ──────┘
//! ```
//!
//! A superfluous bit costs an unneeded frame, a missing bit a message. So bits are added immediately and removed later,
//! by a sweep. A node receives everything until it has reported its full interest, and again when that report is stale.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use fnv::FnvHasher;

use crate::fields::{Field, FieldError, FieldResult, Fields, Form};
use crate::limits::{INTEREST_HUBS_MAX, INTEREST_STALE_MS};
use crate::message_pack::Writer;

/// Number of hash buckets per hub.
pub const INTEREST_BUCKETS: u32 = 65_536;

const BITMAP_BYTES: usize = 8_192;

/// Maximum number of buckets stored and sent as a list. A longer list would be as large as the bitmap.
const LISTED_MAX: usize = BITMAP_BYTES / 2 - 1;

/// Recipients of a message, within a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted<'a> {
    /// All clients of the hub, or a single client of unknown user and groups.
    Everyone,
    /// Members of a group.
    Group(&'a str),
    /// Connections of a user.
    User(&'a str),
}

impl Wanted<'_> {
    /// Bucket of these recipients.
    #[must_use]
    pub fn bucket(&self) -> u16 {
        let (kind, name) = match self {
            Self::Everyone => (0, ""),
            Self::Group(name) => (1, *name),
            Self::User(name) => (2, *name),
        };
        let mut hasher = FnvHasher::default();
        hasher.write(&[kind]);
        hasher.write(name.as_bytes());
        let [a, b, c, d, e, f, g, h] = hasher.finish().to_le_bytes();
        u16::from_le_bytes([a ^ c ^ e ^ g, b ^ d ^ f ^ h])
    }
}

/// Set of a hub's buckets: a short sorted list, or a bitmap.
#[derive(Clone, PartialEq, Eq)]
pub struct InterestMap(Buckets);

#[derive(Clone, PartialEq, Eq)]
enum Buckets {
    /// At most [`LISTED_MAX`] buckets in ascending order.
    Listed(Vec<u16>),
    /// More buckets, lowest bit first.
    Bitmap(Box<[u8; BITMAP_BYTES]>),
}

/// Bytes that are neither a bitmap nor a shorter list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are neither a list of buckets nor a bitmap")]
pub struct InterestMapError(usize);

impl InterestMap {
    /// Adds a bucket. Returns whether it is new.
    pub fn with(&mut self, bucket: u16) -> bool {
        match &mut self.0 {
            Buckets::Listed(buckets) => {
                let Err(place) = buckets.binary_search(&bucket) else { return false };
                if buckets.len() < LISTED_MAX {
                    buckets.insert(place, bucket);
                    return true;
                }
                let mut bitmap = bitmap_of(buckets);
                set(&mut bitmap, bucket);
                self.0 = Buckets::Bitmap(bitmap);
                true
            }
            Buckets::Bitmap(bitmap) => set(bitmap, bucket),
        }
    }

    /// Whether the set contains the bucket.
    #[must_use]
    pub fn contains(&self, bucket: u16) -> bool {
        match &self.0 {
            Buckets::Listed(buckets) => buckets.binary_search(&bucket).is_ok(),
            Buckets::Bitmap(bitmap) => {
                let (byte, mask) = place(bucket);
                bitmap.get(byte).is_some_and(|byte| byte & mask != 0)
            }
        }
    }

    /// Whether the set has no bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // A bitmap always has more buckets than a list.
        matches!(&self.0, Buckets::Listed(buckets) if buckets.is_empty())
    }

    /// Encodes the set: two big-endian bytes per bucket if that is shorter than the bitmap, else the bitmap.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Buckets::Listed(buckets) => buckets.iter().flat_map(|bucket| bucket.to_be_bytes()).collect(),
            Buckets::Bitmap(bitmap) => Bytes::copy_from_slice(&bitmap[..]),
        }
    }

    /// Decodes a set. Lists may be in any order. Fails if the length is invalid.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InterestMapError> {
        if let Ok(bitmap) = <[u8; BITMAP_BYTES]>::try_from(bytes) {
            let bits: u32 = bitmap.iter().map(|byte| byte.count_ones()).sum();
            let is_short = usize::try_from(bits).is_ok_and(|bits| bits <= LISTED_MAX);
            // A canonical form, so that equal sets compare equal.
            return Ok(if is_short { buckets_of(&bitmap).collect() } else { Self(Buckets::Bitmap(Box::new(bitmap))) });
        }
        match bytes.as_chunks() {
            (pairs, []) if pairs.len() <= LISTED_MAX => {
                Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
            }
            _ => Err(InterestMapError(bytes.len())),
        }
    }

    /// Number of buckets in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Buckets::Listed(buckets) => buckets.len(),
            Buckets::Bitmap(bitmap) => buckets_of(bitmap).count(),
        }
    }
}

impl Field for InterestMap {
    fn expected_bytes(&self) -> usize {
        match &self.0 {
            Buckets::Listed(buckets) => 2 * buckets.len(),
            Buckets::Bitmap(_) => BITMAP_BYTES,
        }
    }

    fn write(&self, out: &mut Writer) {
        out.binary(&self.to_bytes());
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        Self::from_bytes(&Bytes::read(fields, name)?).map_err(|error| FieldError::value(name, error.to_string()))
    }
}

/// List of buckets in any order: two big-endian bytes per bucket.
pub(super) enum BucketList {}

impl Form<Vec<u16>> for BucketList {
    fn write(buckets: &Vec<u16>, out: &mut Writer) {
        let buckets: Vec<u8> = buckets.iter().flat_map(|bucket| bucket.to_be_bytes()).collect();
        out.binary(&buckets);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Vec<u16>> {
        let bytes = Bytes::read(fields, name)?;
        match bytes.as_chunks() {
            (pairs, []) if pairs.len() <= usize::try_from(INTEREST_BUCKETS).unwrap_or(usize::MAX) => {
                Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
            }
            _ => Err(FieldError::value(name, format!("{} bytes are not a list of buckets", bytes.len()))),
        }
    }
}

impl Default for InterestMap {
    fn default() -> Self {
        Self(Buckets::Listed(Vec::new()))
    }
}

impl FromIterator<u16> for InterestMap {
    fn from_iter<T: IntoIterator<Item = u16>>(buckets: T) -> Self {
        let mut map = Self::default();
        map.extend(buckets);
        map
    }
}

impl Extend<u16> for InterestMap {
    fn extend<T: IntoIterator<Item = u16>>(&mut self, buckets: T) {
        for bucket in buckets {
            self.with(bucket);
        }
    }
}

impl std::fmt::Debug for InterestMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InterestMap({} buckets)", self.len())
    }
}

fn place(bucket: u16) -> (usize, u8) {
    (usize::from(bucket / 8), 1 << (bucket % 8))
}

fn set(bitmap: &mut [u8; BITMAP_BYTES], bucket: u16) -> bool {
    let (byte, mask) = place(bucket);
    let Some(byte) = bitmap.get_mut(byte) else { return false };
    let is_new = *byte & mask == 0;
    *byte |= mask;
    is_new
}

fn bitmap_of(buckets: &[u16]) -> Box<[u8; BITMAP_BYTES]> {
    let mut bitmap = Box::new([0; BITMAP_BYTES]);
    for &bucket in buckets {
        set(&mut bitmap, bucket);
    }
    bitmap
}

fn buckets_of(bitmap: &[u8; BITMAP_BYTES]) -> impl Iterator<Item = u16> {
    (0..=u16::MAX)
        .zip(bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)))
        .filter_map(|(bucket, is_set)| is_set.then_some(bucket))
}

/// Update of a node's interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterestUpdate {
    /// All buckets of a hub, replacing earlier updates; empty if the hub has no clients.
    Whole {
        /// Name of the hub.
        hub: ByteString,
        /// All buckets of the hub.
        map: InterestMap,
    },
    /// More buckets of a hub.
    Added {
        /// Name of the hub.
        hub: ByteString,
        /// Buckets that are new.
        buckets: Vec<u16>,
    },
    /// All hubs of the node have been sent.
    Complete,
}

/// Interest of a peer, as reported in one session of its node link. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PeerInterest {
    hubs: Arc<HashMap<ByteString, Arc<InterestMap>>>,
    is_complete: bool,
    /// Some hubs were dropped because of the limit, so unknown hubs may have clients.
    is_overfull: bool,
    confirmed_ms: Option<u64>,
}

impl PeerInterest {
    /// Applies an update from the peer.
    pub fn apply(&mut self, update: InterestUpdate) {
        match update {
            InterestUpdate::Whole { hub, map } if map.is_empty() => {
                Arc::make_mut(&mut self.hubs).remove(&hub);
            }
            InterestUpdate::Whole { hub, map } => {
                if let Some(known) = self.hub(hub) {
                    *known = Arc::new(map);
                }
            }
            InterestUpdate::Added { buckets, .. } if buckets.is_empty() => {}
            InterestUpdate::Added { hub, buckets } => {
                if let Some(known) = self.hub(hub) {
                    Arc::make_mut(known).extend(buckets);
                }
            }
            InterestUpdate::Complete => self.is_complete = true,
        }
    }

    /// Records that the peer answered a beat sent at `asked_ms`, after all earlier updates.
    pub fn confirm(&mut self, asked_ms: u64) {
        self.confirmed_ms = self.confirmed_ms.max(Some(asked_ms));
    }

    /// Whether the peer may have clients of the hub among these recipients. True if unknown.
    #[must_use]
    pub fn may_want(&self, hub: &str, wanted: &[Wanted<'_>], now_ms: u64) -> bool {
        if !self.is_known(now_ms) {
            return true;
        }
        match self.hubs.get(hub) {
            Some(map) => wanted.iter().any(|wanted| map.contains(wanted.bucket())),
            None => self.is_overfull,
        }
    }

    /// Whether the peer has ever reported clients of the hub.
    #[must_use]
    pub fn has_announced(&self, hub: &str) -> bool {
        self.hubs.contains_key(hub)
    }

    /// Whether the peer's report is complete and recent.
    #[must_use]
    pub fn is_known(&self, now_ms: u64) -> bool {
        self.is_complete
            && self.confirmed_ms.is_some_and(|confirmed_ms| now_ms.saturating_sub(confirmed_ms) <= INTEREST_STALE_MS)
    }

    /// Returns the map of a hub, creating it if needed; `None` beyond the limit.
    fn hub(&mut self, hub: ByteString) -> Option<&mut Arc<InterestMap>> {
        if self.hubs.len() >= INTEREST_HUBS_MAX && !self.hubs.contains_key(&hub) {
            self.is_overfull = true;
            return None;
        }
        // Names are slices of a frame, which would otherwise stay in memory.
        let hub = ByteString::from(String::from(&*hub));
        Some(Arc::make_mut(&mut self.hubs).entry(hub).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(hub: &str, buckets: &[u16]) -> InterestUpdate {
        InterestUpdate::Whole { hub: hub.into(), map: buckets.iter().copied().collect() }
    }

    fn added(hub: &str, buckets: &[u16]) -> InterestUpdate {
        InterestUpdate::Added { hub: hub.into(), buckets: buckets.to_vec() }
    }

    fn known(updates: impl IntoIterator<Item = InterestUpdate>) -> PeerInterest {
        let mut interest = PeerInterest::default();
        updates.into_iter().for_each(|update| interest.apply(update));
        interest.apply(InterestUpdate::Complete);
        interest.confirm(0);
        interest
    }

    #[test]
    fn buckets_are_the_same_in_every_version() {
        assert_eq!(Wanted::Everyone.bucket(), 0x23f1);
        assert_eq!(Wanted::Group("").bucket(), 0x2302);
        assert_eq!(Wanted::Group("room 1").bucket(), 0x618c);
        assert_eq!(Wanted::User("room 1").bucket(), 0x5368);
        assert_eq!(Wanted::User("ann").bucket(), 0x66ca);
    }

    #[test]
    fn names_spread_over_all_buckets() {
        let names: Vec<String> = (0..10_000).map(|number| format!("room {number}")).collect();
        let buckets: InterestMap = names.iter().map(|name| Wanted::Group(name).bucket()).collect();
        // 65 536 × (1 − e^(−10 000 / 65 536)) buckets are hit on average.
        assert!((9_200..=9_350).contains(&buckets.len()), "{}", buckets.len());
    }

    #[test]
    fn a_map_contains_exactly_the_added_buckets() {
        let mut map = InterestMap::default();
        assert!(map.is_empty());
        for bucket in (0..=u16::MAX).rev().step_by(7) {
            assert!(map.with(bucket));
            assert!(!map.with(bucket));
        }
        assert_eq!(map.len(), 9_363);
        for bucket in 0..=u16::MAX {
            assert_eq!(map.contains(bucket), bucket % 7 == 1, "{bucket}");
        }
    }

    #[test]
    fn a_map_takes_the_shorter_form_on_the_wire() {
        for (buckets, bytes) in [(0, 0), (1, 2), (4_095, 8_190), (4_096, 8_192), (65_535, 8_192)] {
            let map: InterestMap = (0..buckets).map(|bucket: u16| bucket.wrapping_mul(3)).collect();
            assert_eq!(map.to_bytes().len(), bytes, "{buckets}");
            assert_eq!(InterestMap::from_bytes(&map.to_bytes()), Ok(map));
        }
    }

    #[test]
    fn one_set_has_one_form_however_it_was_written() {
        let mut bitmap = [0; BITMAP_BYTES];
        (bitmap[0], bitmap[8_191]) = (0b10, 0x80);
        let map = InterestMap::from_bytes(&bitmap).unwrap();
        assert_eq!(map, InterestMap::from_bytes(&[0xff, 0xff, 0, 1, 0, 1]).unwrap());
        assert_eq!(map.to_bytes(), [0, 1, 0xff, 0xff][..]);
    }

    #[test]
    fn bytes_of_no_length_that_is_written_are_refused() {
        for length in [1, 3, 8_191, 8_193, 8_194, 100_000] {
            assert_eq!(InterestMap::from_bytes(&vec![0; length]), Err(InterestMapError(length)));
        }
    }

    #[test]
    fn a_peer_with_an_incomplete_report_is_sent_everything() {
        let mut interest = PeerInterest::default();
        interest.apply(whole("chat", &[1]));
        interest.confirm(0);
        assert!(interest.may_want("news", &[Wanted::Everyone], 0));
        assert!(interest.has_announced("chat") && !interest.has_announced("news"));
        interest.apply(InterestUpdate::Complete);
        assert!(!interest.may_want("news", &[Wanted::Everyone], 0));
    }

    #[test]
    fn interest_that_is_old_or_was_never_confirmed_does_not_count() {
        let mut interest = PeerInterest::default();
        interest.apply(InterestUpdate::Complete);
        assert!(interest.may_want("chat", &[Wanted::Everyone], 0));
        interest.confirm(1_000);
        interest.confirm(500);
        assert!(!interest.may_want("chat", &[Wanted::Everyone], 1_000 + INTEREST_STALE_MS));
        assert!(interest.may_want("chat", &[Wanted::Everyone], 1_001 + INTEREST_STALE_MS));
    }

    #[test]
    fn only_buckets_with_members_are_wanted() {
        let (room, ann) = (Wanted::Group("room"), Wanted::User("ann"));
        let interest = known([whole("chat", &[Wanted::Everyone.bucket()]), added("chat", &[room.bucket()])]);
        assert!(interest.may_want("chat", &[Wanted::Everyone], 0));
        assert!(interest.may_want("chat", &[room], 0));
        assert!(interest.may_want("chat", &[ann, room], 0));
        assert!(!interest.may_want("chat", &[ann], 0));
        assert!(!interest.may_want("chat", &[], 0));
        assert!(!interest.may_want("news", &[room], 0));
    }

    #[test]
    fn a_sweep_replaces_the_announced_buckets() {
        let mut interest = known([whole("chat", &[1, 2]), whole("news", &[3])]);
        let before = interest.clone();
        interest.apply(whole("chat", &[2]));
        interest.apply(whole("news", &[]));
        assert_eq!(interest.hubs.len(), 1);
        assert!(!interest.hubs["chat"].contains(1) && interest.hubs["chat"].contains(2));
        assert!(before.hubs["chat"].contains(1), "a snapshot stays as it was");
    }

    #[test]
    fn more_hubs_than_are_kept_are_all_wanted() {
        let hubs = 0..=INTEREST_HUBS_MAX;
        let interest = known(hubs.map(|hub| whole(&format!("hub {hub}"), &[Wanted::Everyone.bucket()])));
        assert_eq!(interest.hubs.len(), INTEREST_HUBS_MAX);
        assert!(interest.may_want(&format!("hub {INTEREST_HUBS_MAX}"), &[Wanted::Group("room")], 0));
        assert!(!interest.may_want("hub 0", &[Wanted::Group("room")], 0));
    }
}
