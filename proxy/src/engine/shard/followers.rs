//! Followers of records on one shard. Pure.
//!
//! ```text
//!           no member yet               page, newest message sent
//!  call ─► Waits ────────► Reads ─────────────────────────────────► Live: gets each message as it is recorded
//!                            ▲  socket full: again at the next tick   │
//!                            └─── a number is missing ◄───────────────┘
//! ```
//!
//! Reads of one set run one after the other; followers with the same start share a read.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;

use bytestring::ByteString;
use indexmap::IndexMap;
use tokio::sync::broadcast;
use trunkline_protocol::service::{Position, RecordPage, RecordStart, RecordedMessage, RecordedSet};

use super::command::RecordEvent;
use super::record_news::RecordNews;
use super::slot::Slot;
use crate::engine::upstream::HubIndex;

/// Maximum number of followed records of a connection.
pub(super) const FOLLOWS_MAX: usize = 1000;

/// Maximum number of events that wait for a reader. A reader that misses some reads the record.
const NEWS_MAX: usize = 64;

/// Hub and set of a followed record.
pub(super) type FollowKey = (HubIndex, RecordedSet);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FollowStage {
    /// Waits for the client's membership, until this tick.
    Waits(u32),
    /// Reads the record from this tick on.
    Reads(u32),
    Live,
}

/// Client stream that gets the messages of a record.
#[derive(Debug, Clone)]
pub(super) struct Follower {
    pub(super) slot: Slot,
    pub(super) connection: Rc<str>,
    pub(super) invocation_id: ByteString,
    /// Start of the next read, behind the last message that was sent.
    pub(super) start: RecordStart,
    pub(super) stage: FollowStage,
    /// Set if the client's token permits it, whether or not the client is a member.
    pub(super) is_by_token: bool,
    /// Tick after which a first read that was not answered fails; `None` once answered.
    pub(super) opens_until: Option<u32>,
}

impl Follower {
    /// Whether this message is the next one for the follower. After a gap the follower reads.
    pub(super) fn takes(&mut self, position: Position) -> bool {
        let is_next = self.start.is_next(position).filter(|_| self.stage == FollowStage::Live);
        match is_next {
            Some(true) => self.start = RecordStart::after(position),
            Some(false) => self.stage = FollowStage::Reads(0),
            None => {}
        }
        is_next == Some(true)
    }

    /// Begins with a message that came before the first page of a follow without a position. The client gets no plain
    /// copy of it.
    pub(super) fn begin_with(&mut self, Position { epoch, number }: Position) {
        if self.start == RecordStart::Newest && matches!(self.stage, FollowStage::Reads(_)) {
            self.start = RecordStart::After(epoch, number.saturating_sub(1));
        }
    }

    /// Part of a page for this follower; `None` if the page does not follow its last message.
    pub(super) fn part<'p>(&self, start: RecordStart, page: &'p RecordPage) -> Option<PagePart<'p>> {
        if matches!(self.stage, FollowStage::Waits(_)) {
            return None;
        }
        if self.start == start {
            return Some(PagePart { reset: page.reset.as_deref(), messages: &page.messages });
        }
        let RecordStart::After(epoch, number) = self.start else { return None };
        let known = usize::try_from(number.checked_sub(page.after)?).ok()?;
        let is_covered = self.stage != FollowStage::Live && epoch == page.epoch && page.reset.is_none();
        page.messages.get(known..).filter(|_| is_covered).map(|messages| PagePart { reset: None, messages })
    }

    /// Records that the follower has got all of a page, or of its part up to a message.
    pub(super) fn read_up_to(&mut self, page: &RecordPage, number: u64) {
        self.start = RecordStart::After(page.epoch, number);
        self.opens_until = None;
        self.stage = if number >= page.newest { FollowStage::Live } else { FollowStage::Reads(0) };
    }
}

/// Part of a page for one follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PagePart<'p> {
    pub(super) reset: Option<&'p str>,
    pub(super) messages: &'p [RecordedMessage],
}

#[derive(Debug, Default)]
pub(super) struct FollowedSet {
    /// Followers by slot: a client follows a record once.
    pub(super) followers: IndexMap<Slot, Follower>,
    /// Newest message that came to this shard.
    pub(super) newest: Position,
    /// Newest message for which followers of earlier epochs have read again.
    caught_up: Position,
    /// Start of the read in progress.
    pub(super) reading: Option<RecordStart>,
    /// Tick of the last message or read.
    pub(super) active_at: u32,
    /// News for readers that are no clients of the shard.
    news: Option<broadcast::Sender<RecordNews>>,
}

impl FollowedSet {
    fn count(&self) -> u64 {
        let readers = self.news.as_ref().map_or(0, broadcast::Sender::receiver_count);
        (self.followers.len() + readers) as u64
    }

    fn is_followed(&self) -> bool {
        !self.followers.is_empty() || self.has_readers()
    }

    fn has_readers(&self) -> bool {
        self.news.as_ref().is_some_and(|news| news.receiver_count() > 0)
    }

    /// Reports an event to the readers.
    pub(super) fn report(&self, position: Position, event: &RecordEvent) {
        if let Some(news) = self.news.as_ref().filter(|_| self.has_readers()) {
            // The last reader may have just left.
            drop(news.send(RecordNews::new(position, event)));
        }
    }

    /// Starts another read of followers after a page that is older than a delivered message.
    pub(super) fn catch_up(&mut self, now: u32) {
        let newest = self.newest;
        // Of a record that is lost, the newest message can't be read.
        let is_first = std::mem::replace(&mut self.caught_up, newest) != newest;
        let is_behind = |start| match start {
            RecordStart::After(epoch, number) if epoch == newest.epoch => number < newest.number,
            RecordStart::After(epoch, _) => is_first && epoch < newest.epoch,
            _ => false,
        };
        for follower in self.followers.values_mut() {
            if follower.stage == FollowStage::Live && is_behind(follower.start) {
                follower.stage = FollowStage::Reads(if is_first { now } else { now + 1 });
            }
        }
    }

    /// Start of the next read, if any is due.
    pub(super) fn next_read(&self, now: u32) -> Option<RecordStart> {
        let is_due = |follower: &&Follower| matches!(follower.stage, FollowStage::Reads(from) if from <= now);
        let start = self.followers.values().find(is_due).map(|follower| follower.start);
        start.filter(|_| self.reading.is_none())
    }
}

/// Followed records of a shard's clients.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    sets: HashMap<FollowKey, FollowedSet>,
    /// Records of each client. Some of its follows may have ended, until the next tick.
    by_slot: HashMap<Slot, Vec<FollowKey>>,
}

impl Followers {
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    pub(super) fn set_mut(&mut self, key: &FollowKey) -> Option<&mut FollowedSet> {
        self.sets.get_mut(key)
    }

    /// Keys of all followed records. Also removes ended follows from the lists of their clients.
    pub(super) fn tick(&mut self) -> Vec<FollowKey> {
        let Self { sets, by_slot } = self;
        by_slot.retain(|slot, keys| {
            keys.retain(|key| sets.get(key).is_some_and(|set| set.followers.contains_key(slot)));
            !keys.is_empty()
        });
        sets.keys().cloned().collect()
    }

    /// Takes a set for changes that need the clients, too. Give it back with [`put_back`](Self::put_back).
    pub(super) fn take(&mut self, key: &FollowKey) -> Option<FollowedSet> {
        self.sets.remove(key)
    }

    /// Puts a set back. Returns `false` if it has no followers and no readers, and so is gone.
    pub(super) fn put_back(&mut self, key: &FollowKey, set: FollowedSet) -> bool {
        let is_followed = set.is_followed();
        if is_followed {
            self.sets.insert(key.clone(), set);
        }
        is_followed
    }

    /// Adds a follower. Returns whether its set had no follower before.
    pub(super) fn add(&mut self, key: FollowKey, follower: Follower) -> bool {
        let keys = self.by_slot.entry(follower.slot).or_default();
        if !keys.contains(&key) {
            keys.push(key.clone());
        }
        let is_first = !self.sets.contains_key(&key);
        self.sets.entry(key).or_default().followers.insert(follower.slot, follower);
        is_first
    }

    /// Adds a reader of a record's events from now on. Also returns whether its set is new.
    pub(super) fn add_reader(&mut self, key: FollowKey) -> (broadcast::Receiver<RecordNews>, bool) {
        let is_first = !self.sets.contains_key(&key);
        let news = &mut self.sets.entry(key).or_default().news;
        (news.get_or_insert_with(|| broadcast::channel(NEWS_MAX).0).subscribe(), is_first)
    }

    /// Numbers of followers of a hub's records, the most followed ones.
    pub(crate) fn count_followers(&self, hub: HubIndex, limit: usize) -> Vec<(RecordedSet, u64)> {
        let of_hub = self.sets.iter().filter(|((of, _), _)| *of == hub);
        let mut counts: Vec<_> = of_hub.map(|((_, set), followed)| (set.clone(), followed.count())).collect();
        counts.sort_by_key(|(_, count)| Reverse(*count));
        counts.truncate(limit);
        counts
    }

    /// Follows of a connection, each with its record.
    pub(super) fn of_connection(&self, slot: Slot, connection: &str) -> impl Iterator<Item = (&FollowKey, &Follower)> {
        let keys = self.by_slot.get(&slot).into_iter().flatten();
        let follows = keys.filter_map(move |key| Some((key, self.sets.get(key)?.followers.get(&slot)?)));
        follows.filter(move |(_, follower)| *follower.connection == *connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(start: RecordStart, stage: FollowStage) -> Follower {
        let (connection, invocation_id) = ("c".into(), "1".into());
        Follower { slot: 1, connection, invocation_id, start, stage, is_by_token: false, opens_until: Some(5) }
    }

    fn position(epoch: u64, number: u64) -> Position {
        Position { epoch, number }
    }

    fn page(after: u64, count: u64, newest: u64) -> RecordPage {
        let message = |number| RecordedMessage { number, ..RecordedMessage::default() };
        let messages = (after + 1..=after + count).map(message).collect();
        RecordPage { epoch: 7, after, newest, messages, ..RecordPage::default() }
    }

    #[test]
    fn a_live_follower_takes_each_number_once_and_reads_after_a_gap() {
        let mut live = follower(RecordStart::After(7, 2), FollowStage::Live);
        assert!(live.takes(position(7, 3)) && !live.takes(position(7, 3)) && !live.takes(position(7, 1)));
        assert_eq!(live.stage, FollowStage::Live);
        assert!(!live.takes(position(7, 5)) && live.stage == FollowStage::Reads(0));
        assert!(!live.takes(position(7, 4)), "the read brings it");
        let mut other = follower(RecordStart::After(7, 2), FollowStage::Live);
        assert!(
            !other.takes(position(8, 3)) && other.stage == FollowStage::Reads(0),
            "another epoch is no next number"
        );
    }

    #[test]
    fn a_follow_without_a_position_begins_with_the_first_message_after_its_call() {
        let mut early = follower(RecordStart::Newest, FollowStage::Reads(0));
        early.begin_with(position(7, 3));
        early.begin_with(position(7, 4));
        assert_eq!(early.start, RecordStart::After(7, 2));
        let behind_it = RecordPage { after: 3, ..page(3, 0, 3) };
        assert_eq!(early.part(RecordStart::Newest, &behind_it), None, "it reads from its own start");
        let mut waiting = follower(RecordStart::Newest, FollowStage::Waits(5));
        waiting.begin_with(position(7, 3));
        assert_eq!(waiting.start, RecordStart::Newest, "no member yet");
    }

    #[test]
    fn a_follower_of_a_record_that_has_not_begun_takes_its_first_message_only() {
        let early = || follower(RecordStart::After(0, 0), FollowStage::Live);
        assert!(early().takes(position(9, 1)) && !early().takes(position(9, 2)));
    }

    #[test]
    fn a_page_serves_each_follower_within_it_from_its_place_on() {
        let numbers = |start, stage| {
            let page = page(0, 4, 9);
            let part = follower(start, stage).part(RecordStart::Oldest, &page)?.messages;
            Some(part.iter().map(|message| message.number).collect::<Vec<_>>())
        };
        let reads = FollowStage::Reads(0);
        assert_eq!(numbers(RecordStart::Oldest, reads), Some(vec![1, 2, 3, 4]));
        assert_eq!(numbers(RecordStart::After(7, 2), reads), Some(vec![3, 4]));
        assert_eq!(numbers(RecordStart::After(7, 4), reads), Some(vec![]));
        for start in [RecordStart::After(7, 5), RecordStart::After(8, 2), RecordStart::Newest] {
            assert_eq!(numbers(start, reads), None);
        }
        assert_eq!(numbers(RecordStart::Oldest, FollowStage::Waits(9)), None);
    }

    #[test]
    fn a_follower_whose_page_is_older_than_a_delivered_message_reads_again() {
        let mut set = FollowedSet { newest: position(7, 10), ..FollowedSet::default() };
        for (slot, start) in
            [(1, RecordStart::After(7, 9)), (2, RecordStart::After(7, 10)), (3, RecordStart::After(0, 0))]
        {
            set.followers.insert(slot, Follower { slot, ..follower(start, FollowStage::Live) });
        }
        set.catch_up(0);
        let stages = |set: &FollowedSet| set.followers.values().map(|follower| follower.stage).collect::<Vec<_>>();
        let (reads, live) = (FollowStage::Reads(0), FollowStage::Live);
        assert_eq!(stages(&set), [reads, live, reads]);
        assert_eq!(set.next_read(0), Some(RecordStart::After(7, 9)));
        set.followers.values_mut().for_each(|follower| follower.stage = live);
        set.catch_up(0);
        let later = FollowStage::Reads(1);
        assert_eq!(stages(&set), [later, live, live], "the newest message may be lost: no read without a pause");
    }

    #[test]
    fn a_follower_is_live_once_it_has_the_newest_message() {
        let mut reader = follower(RecordStart::Oldest, FollowStage::Reads(0));
        reader.read_up_to(&page(0, 4, 9), 4);
        assert_eq!((reader.stage, reader.opens_until), (FollowStage::Reads(0), None));
        reader.read_up_to(&page(4, 5, 9), 9);
        assert_eq!((reader.stage, reader.start), (FollowStage::Live, RecordStart::After(7, 9)));
    }
}
