//! Ledger of rooms: their members, sent messages and received messages.
//!
//! Pure: it records each send and receipt, and its counts are always exact. A message is expected by each member that
//! its room has when it is sent. A departed member is expected to receive no further messages, but messages in flight
//! to it are lost.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::stamp::Stamp;
use crate::tracks::{Arrival, Tracks};

/// Maximum number of listed missing messages, enough to show a pattern.
const LISTED_MAX: usize = 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Expected receipts of sent messages.
    pub(crate) expected: u64,
    /// Expected messages that were received, each counted once.
    pub(crate) received: u64,
    /// Expected messages that were not received.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    /// Received after a later message of the same sender.
    pub(crate) reordered: u64,
    /// Received by a wrong client, or never sent.
    pub(crate) misdelivered: u64,
}

impl Counts {
    /// Whether each message reached its recipients once and in order.
    pub(crate) fn are_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.misdelivered == 0
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.expected += other.expected;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.misdelivered += other.misdelivered;
    }
}

/// Ledger of one run. Members are identified by client number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rooms: Vec<Room>,
    members: Vec<Option<Member>>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Room {
    /// Number of messages from each sender.
    sent: Vec<u32>,
    members: u64,
}

#[derive(Debug)]
struct Member {
    room: u32,
    is_here: bool,
    tracks: Tracks,
}

impl Ledger {
    /// Creates a ledger with the given number of senders per room.
    pub(crate) fn with_rooms(senders: &[usize]) -> Self {
        let room = |&senders: &usize| Room { sent: vec![0; senders], members: 0 };
        Self { rooms: senders.iter().map(room).collect(), ..Self::default() }
    }

    pub(crate) fn join(&mut self, client: usize, room: u32) {
        let Some(place) = self.rooms.get_mut(room as usize) else { return };
        place.members += 1;
        let member = Member { room, is_here: true, tracks: Tracks::from_now(&place.sent) };
        if self.members.len() <= client {
            self.members.resize_with(client + 1, || None);
        }
        if let Some(entry) = self.members.get_mut(client) {
            *entry = Some(member);
        }
    }

    pub(crate) fn leave(&mut self, client: usize) {
        let Some(Some(member)) = self.members.get_mut(client) else { return };
        if std::mem::take(&mut member.is_here)
            && let Some(room) = self.rooms.get_mut(member.room as usize)
        {
            room.members -= 1;
        }
    }

    pub(crate) fn next_number(&self, room: u32, sender: u32) -> Option<u32> {
        self.rooms.get(room as usize)?.sent.get(sender as usize).copied()
    }

    pub(crate) fn sent(&mut self, room: u32, sender: u32) {
        let Some(room) = self.rooms.get_mut(room as usize) else { return };
        if let Some(sent) = room.sent.get_mut(sender as usize) {
            *sent += 1;
            self.counts.sent += 1;
            self.counts.expected += room.members;
        }
    }

    /// Records a message received by a client. Returns whether it was expected and new.
    pub(crate) fn received(&mut self, client: usize, stamp: &Stamp) -> bool {
        let was_sent = self.next_number(stamp.room, stamp.sender).is_some_and(|next| stamp.number < next);
        let member = self.members.get_mut(client).and_then(Option::as_mut);
        let arrival = match member.filter(|member| was_sent && member.is_here && member.room == stamp.room) {
            Some(member) => member.tracks.arrived(stamp.sender, stamp.number),
            None => Arrival::Unexpected,
        };
        match arrival {
            Arrival::InOrder => self.counts.received += 1,
            Arrival::Late => {
                self.counts.received += 1;
                self.counts.reordered += 1;
            }
            Arrival::Duplicate => self.counts.duplicated += 1,
            Arrival::Unexpected => self.counts.misdelivered += 1,
        }
        matches!(arrival, Arrival::InOrder | Arrival::Late)
    }

    /// Whether all expected messages have arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.counts.received == self.counts.expected
    }

    /// Current counts; messages in flight count as lost.
    pub(crate) fn counts(&self) -> Counts {
        Counts { lost: self.counts.expected - self.counts.received, ..self.counts }
    }

    /// First missing messages of the current members, as readable lines.
    pub(crate) fn missing(&self) -> Vec<String> {
        let members = self.members.iter().enumerate().filter_map(|(client, member)| Some((client, member.as_ref()?)));
        let here = members.filter(|(_, member)| member.is_here);
        let lines = here.flat_map(|(client, member)| {
            let sent = self.rooms.get(member.room as usize).map_or(&[][..], |room| &room.sent);
            let room = member.room;
            member.tracks.missing(sent).map(move |(sender, number)| {
                format!("client {client} misses message {number} of sender {sender} in room {room}")
            })
        });
        lines.take(LISTED_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rooms with two senders each; clients 0 to 3 are in room 0, clients 4 and 5 in room 1.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::with_rooms(&[2, 2]);
        (0..4).for_each(|client| ledger.join(client, 0));
        (4..6).for_each(|client| ledger.join(client, 1));
        ledger
    }

    fn stamp(room: u32, sender: u32, number: u32) -> Stamp {
        Stamp { room, sender, number, from_us: 0 }
    }

    fn deliver(ledger: &mut Ledger, clients: std::ops::Range<usize>, stamp: &Stamp) {
        clients.for_each(|client| _ = ledger.received(client, stamp));
    }

    #[test]
    fn a_message_is_expected_by_all_members_of_its_room_only() {
        let mut ledger = ledger();
        ledger.sent(0, 0);
        ledger.sent(1, 1);
        assert!(!ledger.is_complete());
        deliver(&mut ledger, 0..4, &stamp(0, 0, 0));
        deliver(&mut ledger, 4..6, &stamp(1, 1, 0));
        assert!(ledger.is_complete());
        assert_eq!(ledger.counts(), Counts { sent: 2, expected: 6, received: 6, ..Counts::default() });
        assert!(ledger.counts().are_clean());
    }

    #[test]
    fn one_of_each_fault_is_counted_as_just_that() {
        let mut ledger = ledger();
        (0..3).for_each(|_| ledger.sent(0, 0));
        deliver(&mut ledger, 0..1, &stamp(0, 0, 1)); // 0 arrives after this: out of order
        deliver(&mut ledger, 0..1, &stamp(0, 0, 0));
        deliver(&mut ledger, 0..1, &stamp(0, 0, 0)); // duplicate
        deliver(&mut ledger, 0..4, &stamp(0, 0, 2)); // 0 and 1 are lost for clients 1 to 3
        deliver(&mut ledger, 5..6, &stamp(0, 0, 2)); // client of another room
        deliver(&mut ledger, 0..1, &stamp(0, 0, 3)); // never sent
        deliver(&mut ledger, 9..10, &stamp(0, 0, 2)); // unknown client
        let expected =
            Counts { sent: 3, expected: 12, received: 6, lost: 6, duplicated: 1, reordered: 1, misdelivered: 3 };
        assert_eq!(ledger.counts(), expected);
        assert_eq!(ledger.missing().first().unwrap(), "client 1 misses message 0 of sender 0 in room 0");
        assert_eq!(ledger.missing().len(), 6);
    }

    #[test]
    fn losses_at_head_and_tail_are_counted() {
        let mut ledger = ledger();
        (0..10).for_each(|_| ledger.sent(1, 0));
        (2..7).for_each(|number| deliver(&mut ledger, 4..6, &stamp(1, 0, number)));
        assert_eq!(ledger.counts().lost, 10);
    }

    #[test]
    fn who_joins_later_expects_only_what_is_sent_then() {
        let mut ledger = ledger();
        ledger.sent(0, 0);
        ledger.join(6, 0);
        ledger.sent(0, 0);
        assert_eq!(ledger.counts().expected, 9);
        assert!(ledger.received(6, &stamp(0, 0, 1)));
        assert!(!ledger.received(6, &stamp(0, 0, 0)));
        assert_eq!(ledger.counts().misdelivered, 1);
    }

    #[test]
    fn who_has_gone_expects_nothing_more_but_loses_what_was_on_its_way() {
        let mut ledger = ledger();
        ledger.sent(1, 0);
        ledger.leave(4);
        ledger.leave(4);
        ledger.sent(1, 0);
        deliver(&mut ledger, 5..6, &stamp(1, 0, 0));
        deliver(&mut ledger, 5..6, &stamp(1, 0, 1));
        assert_eq!(ledger.counts(), Counts { sent: 2, expected: 3, received: 2, lost: 1, ..Counts::default() });
    }

    #[test]
    fn every_thousandth_of_many_is_missed_exactly() {
        let mut ledger = Ledger::with_rooms(&[1]);
        (0..100).for_each(|client| ledger.join(client, 0));
        let mut delivery = 0;
        for number in 0..500 {
            ledger.sent(0, 0);
            for client in 0..100 {
                delivery += 1;
                if delivery % 1_000 != 0 {
                    ledger.received(client, &stamp(0, 0, number));
                }
            }
        }
        assert_eq!(ledger.counts().lost, 50);
        assert_eq!(ledger.counts().received, 49_950);
    }
}
