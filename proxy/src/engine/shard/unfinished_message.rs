//! Unfinished messages of a shard's clients, with a minimum rate for each and a budget for all.
//!
//! Other clients cost nothing. Time during which a client is paused does not count.
//!
//! | total of all unfinished messages | a message is given up |
//! |---|---|
//! | up to half of the budget | if it arrives at less than [`BYTES_PER_SECOND`]; it may stall for [`MESSAGE_TIMEOUT_S`] in between |
//! | more | also if it arrives at less than [`PRESSED_BYTES_PER_SECOND`] after its first 30 s: the slowest first, down to half of the budget |
//! | more than the budget | if it is one of the largest, as for the outboxes of slow readers |
//!
//! Memory is rarely short. So a phone with a slow uplink, or with no signal for a while, completes its message, and
//! only a stalled message is given up. An attacker has to keep sending: 1 KiB/s for each message within its hub's limit
//! holds at most half of the budget. Beyond that the average rate decides, so a burst followed by a trickle is given up
//! before an honest slow uplink. Each shard has an equal share of the node's budget.

use std::collections::HashMap;
use std::sync::Arc;

use super::connection::Connections;
use super::slot::{Serial, Slot};
use crate::ground::bounded::ByteBudget;
use crate::ground::metrics::Counters;

/// Longest time for which a message may stall, in seconds. By default a client that is silent this long is
/// lost.
pub(super) const MESSAGE_TIMEOUT_S: u32 = 30;

/// Bytes that extend a message's time by one second, as on an uplink of 8 kbit/s.
pub(super) const BYTES_PER_SECOND: usize = 1024;

/// Bytes that pay for one second under memory pressure: the rate of a poor mobile uplink.
pub(super) const PRESSED_BYTES_PER_SECOND: usize = 16 * 1024;

/// Fraction of the share above which memory pressure begins.
const PRESSED_PART: usize = 2;

/// State of a client's unfinished message after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageRest {
    /// Memory used; 0 if no message is unfinished.
    pub bytes: usize,
    /// Bytes received of the message.
    pub length: usize,
    /// Sequence number among the client's messages that took several reads.
    pub number: u32,
    /// Whether the bytes include complete messages that wait for an app server.
    pub is_held: bool,
}

/// Unfinished messages of a shard's clients, by the serials of the reader tasks: a parked reader of a client that
/// resumed over another socket keeps its memory until it ends.
#[derive(Debug)]
pub(crate) struct UnfinishedMessages {
    budget: ByteBudget,
    counters: Arc<Counters>,
    of_readers: HashMap<Serial, Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    slot: Slot,
    rest: MessageRest,
    /// Bytes of remaining time, earned by arriving faster than required.
    credit: usize,
    /// Start tick, moved later by each paused tick.
    since: u32,
}

impl Unfinished {
    /// Maximum time that a message can earn in advance.
    const CREDIT: usize = MESSAGE_TIMEOUT_S as usize * BYTES_PER_SECOND;

    fn begun(slot: Slot, now: u32) -> Self {
        Self { slot, rest: MessageRest::NONE, credit: Self::CREDIT, since: now }
    }

    /// Updates the state after a read. The next message starts with its own time.
    fn follow(&mut self, rest: MessageRest, now: u32) {
        if self.rest.number != rest.number {
            *self = Self { rest: self.rest, ..Self::begun(self.slot, now) };
        } else {
            let come = rest.length.saturating_sub(self.rest.length);
            self.credit = self.credit.saturating_add(come).min(Self::CREDIT);
        }
        self.rest = rest;
    }

    /// Advances a message by one second without pause. Returns `false` if it has stalled for too long.
    fn go_on(&mut self) -> bool {
        self.credit = self.credit.saturating_sub(BYTES_PER_SECOND);
        self.credit > 0
    }

    /// Bytes per second of a message that is too slow under memory pressure.
    fn slow_pace(&self, now: u32) -> Option<usize> {
        let seconds = now.saturating_sub(self.since) as usize;
        let earned = self.rest.length / PRESSED_BYTES_PER_SECOND;
        (seconds >= earned.saturating_add(MESSAGE_TIMEOUT_S as usize)).then(|| self.rest.length / seconds)
    }
}

impl UnfinishedMessages {
    /// Creates one shard's share of the node's budget.
    pub(super) fn new(total_bytes: usize, shards: usize, counters: Arc<Counters>) -> Self {
        Self { budget: ByteBudget::share_of(total_bytes, shards), counters, of_readers: HashMap::new() }
    }

    /// Records the unfinished message of the client in this slot after a read.
    pub(crate) fn note_rest(&mut self, (slot, serial): (Slot, Serial), rest: MessageRest, now: u32) {
        if rest.bytes == 0 {
            return self.forget(serial);
        }
        let kept = self.of_readers.entry(serial).or_insert_with(|| Unfinished::begun(slot, now));
        self.counters.unfinished_bytes.follow(kept.rest.bytes, rest.bytes);
        kept.follow(rest, now);
    }

    /// Removes a reader without an unfinished message.
    pub(crate) fn forget(&mut self, serial: Serial) {
        if let Some(gone) = self.of_readers.remove(&serial) {
            self.counters.unfinished_bytes.follow(gone.rest.bytes, 0);
        }
    }

    /// Advances by one second. Returns the clients with messages that arrive too slowly.
    pub(super) fn advance(&mut self, connections: &Connections, now: u32) -> Vec<Slot> {
        let (mut late, mut slow, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        for (serial, kept) in &mut self.of_readers {
            let Some(client) = connections.live(kept.slot).filter(|client| client.serial() == *serial) else {
                continue;
            };
            bytes += kept.rest.bytes;
            if kept.rest.is_held || !client.pauses().is_empty() {
                kept.since = kept.since.saturating_add(1);
            } else if !kept.go_on() {
                late.push(kept.slot);
                bytes -= kept.rest.bytes;
            } else if let Some(pace) = kept.slow_pace(now) {
                slow.push((pace, kept.slot, kept.rest.bytes));
            }
        }
        slow.sort_unstable();
        for (_, slot, freed) in slow {
            if bytes > self.budget.limit / PRESSED_PART {
                late.push(slot);
                bytes -= freed;
            }
        }
        if self.of_readers.is_empty() && self.of_readers.capacity() > 0 {
            self.of_readers = HashMap::new();
        }
        late
    }

    /// Bytes to free to get well below the share; 0 within it.
    pub(crate) fn excess_bytes(&self) -> usize {
        self.budget.excess(self.counters.unfinished_bytes.get())
    }

    /// Sizes of all unfinished messages, with their clients' slots, without readers about to end, whose clients resumed
    /// over another socket.
    pub(super) fn sizes(&self, connections: &Connections) -> Vec<(usize, Slot)> {
        let is_there = |serial: &Serial, slot| connections.get(slot).is_some_and(|client| client.serial() == *serial);
        let kept = self.of_readers.iter().filter(|(serial, kept)| is_there(serial, kept.slot));
        kept.map(|(_, kept)| (kept.rest.bytes, kept.slot)).collect()
    }
}

impl MessageRest {
    const NONE: Self = Self { bytes: 0, length: 0, number: 0, is_held: false };
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::HubProtocol;

    use super::*;
    use crate::engine::shard::connection::{Client, PauseReason};
    use crate::engine::shard::content::Content;
    use crate::engine::upstream::{AppServerId, HubIdentity, LinkHandle};
    use crate::ground::net::socket::Socket;

    /// Clients with equal slots and serials, and their unfinished messages.
    struct Scene {
        connections: Connections,
        messages: UnfinishedMessages,
        now: u32,
    }

    fn rest(bytes: usize, number: u32) -> MessageRest {
        MessageRest { bytes, length: bytes, number, is_held: false }
    }

    impl Scene {
        fn new(budget: usize, clients: u32) -> Self {
            let (mut connections, messages) =
                (Connections::default(), UnfinishedMessages::new(budget, 1, Arc::default()));
            for serial in 0..clients {
                let home = Arc::new(LinkHandle::opened(&HubIdentity::detached(), AppServerId::from(1)));
                let socket = Socket::boxed(tokio::io::empty());
                let mut client =
                    Client::new(format!("{serial}").into(), serial, home, Content::Hub(HubProtocol::Json), socket);
                client.life_mut().answered();
                assert_eq!(connections.insert(client, None), serial);
            }
            Self { connections, messages, now: 100 }
        }

        fn note(&mut self, client: u32, bytes: usize) {
            self.messages.note_rest((client, client), rest(bytes, 0), self.now);
        }

        fn tick(&mut self) -> Vec<Slot> {
            self.now += 1;
            self.messages.advance(&self.connections, self.now)
        }

        /// Number of ticks without late messages, up to a maximum.
        fn calm(&mut self, ticks: u32) -> u32 {
            (0..ticks).take_while(|_| self.tick().is_empty()).count().try_into().unwrap()
        }
    }

    #[test]
    fn all_unfinished_messages_together_have_a_budget_that_is_undercut_by_an_eighth() {
        let Scene { connections, .. } = Scene::new(0, 3);
        let mut messages = UnfinishedMessages::new(1600, 2, Arc::default());
        messages.note_rest((1, 1), rest(500, 0), 1);
        messages.note_rest((2, 2), rest(300, 0), 1);
        assert_eq!(messages.excess_bytes(), 0);
        messages.note_rest((2, 2), rest(301, 0), 2);
        assert_eq!(messages.excess_bytes(), 101);
        messages.forget(9);
        assert_eq!(messages.excess_bytes(), 101, "another reader had nothing");
        messages.note_rest((1, 1), rest(0, 1), 2);
        assert_eq!((messages.excess_bytes(), messages.sizes(&connections)), (0, vec![(301, 2)]));
    }

    #[test]
    fn a_message_may_stand_still_for_thirty_seconds_however_much_of_it_has_come() {
        for bytes in [1, 1_000_000] {
            let mut scene = Scene::new(usize::MAX, 1);
            scene.note(0, bytes);
            assert_eq!(scene.calm(100), 29, "{bytes}");
        }
    }

    #[test]
    fn a_message_that_comes_at_its_pace_goes_on_and_the_next_one_has_its_own_time() {
        let mut scene = Scene::new(usize::MAX, 1);
        for second in 1..=200 {
            scene.note(0, second * BYTES_PER_SECOND);
            assert!(scene.tick().is_empty());
        }
        for second in 1..=40 {
            scene.note(0, 200 * BYTES_PER_SECOND + second * BYTES_PER_SECOND / 2);
            assert!(scene.tick().is_empty());
        }
        scene.messages.note_rest((0, 0), rest(1, 1), scene.now);
        assert_eq!(scene.calm(100), 29);
    }

    #[test]
    fn time_in_which_a_client_is_not_read_does_not_count() {
        let mut scene = Scene::new(usize::MAX, 1);
        scene.note(0, 1);
        assert_eq!(scene.calm(29), 29);
        scene.connections.live_mut(0).unwrap().pauses_mut().add_reason(PauseReason::AppServer);
        assert_eq!(scene.calm(500), 500);
        scene.connections.live_mut(0).unwrap().resume(PauseReason::AppServer, scene.now);
        assert_eq!(scene.tick(), [0]);
    }

    #[test]
    fn beyond_half_of_the_budget_the_slowest_go_and_no_more_than_needed() {
        const UNIT: usize = 64 * 1024;
        // One sends everything at first and then trickles, one sends 8 KiB/s, one 20.
        for (budget, late) in [(6, vec![]), (5, vec![0]), (2, vec![0, 1])] {
            let mut scene = Scene::new(budget * UNIT, 3);
            let mut found = Vec::new();
            for second in 0..80 {
                let paces = [UNIT + second * 1024, second * 8 * 1024, second * 20 * 1024];
                for (client, length) in (0..).zip(paces) {
                    if !found.contains(&client) {
                        let rest = MessageRest { length, ..rest(UNIT, 0) };
                        scene.messages.note_rest((client, client), rest, scene.now);
                    }
                }
                for slot in scene.tick() {
                    scene.messages.forget(slot);
                    found.push(slot);
                }
            }
            assert_eq!(found, late, "{budget}");
        }
    }

    #[test]
    fn a_reader_whose_client_has_another_one_by_now_leaves_that_ones_message_alone() {
        let mut scene = Scene::new(usize::MAX, 1);
        scene.messages.note_rest((0, 7), rest(500, 3), scene.now);
        scene.note(0, 300);
        scene.messages.note_rest((0, 7), rest(600, 3), scene.now);
        assert_eq!(scene.messages.sizes(&scene.connections), [(300, 0)]);
        scene.messages.forget(7);
        assert_eq!(scene.messages.counters.unfinished_bytes.get(), 300);
        assert_eq!(scene.calm(100), 29);
    }
}
