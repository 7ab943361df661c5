//! Ledger of all messages: sender, audience, and the messages that each client should have received. Pure.
//!
//! A *speech* is everything that one speaker sends over one connection, numbered from 0; a *life* is one connection of
//! a client. Within both, the guarantee holds: each confirmed message arrives once and in order, whatever its kind.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    All,
    Group(usize),
    One { client: usize, life: u32 },
}

/// Result of the call that sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pending,
    /// The app server has sent it.
    Confirmed,
    /// Unknown: its caller lost its connection, or its app server was killed immediately afterwards.
    Unknown,
}

#[derive(Debug)]
struct Said {
    audience: Audience,
    fate: Fate,
    at: Instant,
}

/// All speeches by number.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Vec<Arc<SentMessages>>>);

/// Messages that one speaker sends over one connection.
#[derive(Debug)]
pub(crate) struct SentMessages {
    pub(crate) id: usize,
    said: Mutex<Vec<Said>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(crate) fn begin(&self) -> Arc<SentMessages> {
        let mut all_sent = lock(&self.0);
        let sent = Arc::new(SentMessages { id: all_sent.len(), said: Mutex::default() });
        all_sent.push(Arc::clone(&sent));
        sent
    }

    /// Marks messages confirmed since this time as uncertain, because the killed app server may still have had them
    /// queued.
    pub(crate) fn doubt_since(&self, since: Instant) {
        for sent in lock(&self.0).iter() {
            let mut said = lock(&sent.said);
            said.iter_mut().rev().take_while(|said| said.at >= since).for_each(|said| said.fate = Fate::Unknown);
        }
    }

    fn all_sent(&self) -> Vec<Arc<SentMessages>> {
        lock(&self.0).clone()
    }
}

impl SentMessages {
    /// Adds a message and returns its number.
    pub(crate) fn send(&self, audience: Audience) -> usize {
        let mut said = lock(&self.said);
        said.push(Said { audience, fate: Fate::Pending, at: Instant::now() });
        said.len() - 1
    }

    pub(crate) fn settle(&self, number: usize, fate: Fate) {
        if let Some(said) = lock(&self.said).get_mut(number).filter(|said| said.fate == Fate::Pending) {
            said.fate = fate;
            said.at = Instant::now();
        }
    }
}

/// Messages that one connection of a client has received.
#[derive(Debug)]
pub(crate) struct ReceivedMessages {
    ledger: Arc<Ledger>,
    client: usize,
    life: u32,
    group: usize,
    heard: HashMap<usize, Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Messages before this number were in flight when the connection started.
    from: usize,
    /// One more than the largest number received.
    next: usize,
    missing: BTreeSet<usize>,
}

/// Verdict on a received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    InOrder,
    OutOfOrder,
    Duplicate,
    /// The message was for another client.
    Misdelivered,
}

impl ReceivedMessages {
    /// Starts to expect messages to everyone, to its group and to this client.
    pub(crate) fn begin(ledger: &Arc<Ledger>, client: usize, life: u32, group: usize) -> Self {
        let heard = ledger.all_sent().into_iter().map(|sent| {
            let from = lock(&sent.said).len();
            (sent.id, Heard { from, ..Heard::default() })
        });
        Self { ledger: Arc::clone(ledger), client, life, group, heard: heard.collect() }
    }

    fn is_for_me(&self, audience: Audience) -> bool {
        match audience {
            Audience::All => true,
            Audience::Group(group) => group == self.group,
            Audience::One { client, life } => (client, life) == (self.client, self.life),
        }
    }

    pub(crate) fn receive(&mut self, sent: usize, number: usize) -> Arrival {
        let Some(sent) = lock(&self.ledger.0).get(sent).map(Arc::clone) else { return Arrival::Misdelivered };
        let said = lock(&sent.said);
        if !said.get(number).is_some_and(|said| self.is_for_me(said.audience)) {
            return Arrival::Misdelivered;
        }
        let mut heard = self.heard.remove(&sent.id).unwrap_or_default();
        let arrival = if number >= heard.next {
            let skipped = heard.next.max(heard.from)..number;
            let for_me = |number: &usize| said.get(*number).is_some_and(|said| self.is_for_me(said.audience));
            heard.missing.extend(skipped.filter(for_me));
            heard.next = number + 1;
            Arrival::InOrder
        } else if heard.missing.remove(&number) {
            Arrival::OutOfOrder
        } else {
            Arrival::Duplicate
        };
        self.heard.insert(sent.id, heard);
        arrival
    }

    /// Confirmation times of messages that never arrived. If the connection was cut, ignores messages after the last
    /// received one.
    pub(crate) fn lost(&self, is_whole: bool) -> Vec<Instant> {
        let mut lost = Vec::new();
        for sent in self.ledger.all_sent() {
            let said = lock(&sent.said);
            let nothing = Heard::default();
            let heard = self.heard.get(&sent.id).unwrap_or(&nothing);
            let tail = if is_whole { heard.next.max(heard.from)..said.len() } else { 0..0 };
            let asked = heard.missing.iter().copied().chain(tail).filter_map(|number| said.get(number));
            let missed = asked.filter(|said| said.fate == Fate::Confirmed && self.is_for_me(said.audience));
            lost.extend(missed.map(|said| said.at));
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Audience = Audience::One { client: 7, life: 1 };

    fn received(ledger: &Arc<Ledger>) -> ReceivedMessages {
        ReceivedMessages::begin(ledger, 7, 1, 2)
    }

    fn send(sent: &SentMessages, audience: Audience) -> usize {
        let number = sent.send(audience);
        sent.settle(number, Fate::Confirmed);
        number
    }

    #[test]
    fn gaps_are_lost_only_where_the_message_was_for_me_and_confirmed() {
        let ledger = Arc::new(Ledger::default());
        let mut received = received(&ledger);
        let sent = ledger.begin();
        for audience in
            [Audience::All, Audience::Group(1), Audience::One { client: 7, life: 2 }, Audience::Group(2), ME]
        {
            send(&sent, audience);
        }
        let unsure = sent.send(Audience::All);
        let last = send(&sent, Audience::All);
        sent.settle(unsure, Fate::Unknown);
        assert_eq!(received.receive(sent.id, 0), Arrival::InOrder);
        assert_eq!(received.receive(sent.id, last), Arrival::InOrder);
        assert_eq!(received.lost(true).len(), 2, "those for my group and for me");
        assert_eq!(received.receive(sent.id, 3), Arrival::OutOfOrder);
        assert_eq!(received.receive(sent.id, 3), Arrival::Duplicate);
        assert_eq!(received.receive(sent.id, 1), Arrival::Misdelivered);
        assert_eq!(received.lost(true).len(), 1);
    }

    #[test]
    fn what_was_under_way_when_a_life_began_may_come_or_not() {
        let ledger = Arc::new(Ledger::default());
        let sent = ledger.begin();
        let early = [send(&sent, Audience::All), send(&sent, Audience::All)];
        let mut received = received(&ledger);
        assert_eq!(received.lost(true).len(), 0);
        assert_eq!(received.receive(sent.id, early[1]), Arrival::InOrder);
        assert_eq!(received.receive(sent.id, early[1]), Arrival::Duplicate);
        assert_eq!(received.lost(true).len(), 0);
    }

    #[test]
    fn the_last_messages_are_expected_of_clients_that_stayed() {
        let ledger = Arc::new(Ledger::default());
        let received = received(&ledger);
        send(&ledger.begin(), Audience::All);
        assert_eq!((received.lost(false).len(), received.lost(true).len()), (0, 1));
        let before = Instant::now();
        send(&ledger.begin(), Audience::All);
        ledger.doubt_since(before);
        assert_eq!(received.lost(true).len(), 1, "the app server that confirmed it was killed");
    }
}
