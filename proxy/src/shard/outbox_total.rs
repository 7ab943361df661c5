//! What waits for all clients of a shard is bounded: beyond it, those for whom most waits are closed.
//!
//! Counted are the bytes of clients whose sockets take no more, and only when that changes; a client that keeps up is
//! never looked at. Each shard has an equal share of the node's budget, so none has to know of the others.

use std::rc::Rc;

use super::{Ending, Shard};
use crate::net::socket::Socket;
use crate::shard::directory::{Client, Slot};
use crate::shard::outbox::Outbox;

/// One part in so many of the share is made free at once: looking for the largest takes a look at all.
const FREED_PART: usize = 8;

impl Shard {
    /// Closes the clients for whom most waits, if too much waits.
    pub(super) fn hold_outbox_total(self: &Rc<Self>) {
        let share = self.shared.settings.outbox.total_bytes / self.shared.shards().len().max(1);
        let waiting = usize::try_from(self.counters.outbox_bytes.get()).unwrap_or(usize::MAX);
        if waiting > share {
            let excess = waiting - (share - share / FREED_PART);
            let waiting = self.directory.borrow().waiting();
            largest(waiting, excess).into_iter().for_each(|slot| self.end_for_the_others(slot));
        }
    }

    fn end_for_the_others(self: &Rc<Self>, slot: Slot) {
        let is_closing = self.directory.borrow().get(slot).is_none_or(Client::is_closing);
        if is_closing {
            // It was told, but does not read that either.
            return self.cut(slot);
        }
        self.end(slot, &Ending::outbox_total());
    }

    /// Cuts the socket of a client, with all that waits for it.
    pub(super) fn cut(&self, slot: Slot) {
        if let Some(client) = self.directory.borrow_mut().get_mut(slot) {
            self.with_outbox(client, |outbox, socket| {
                *outbox = Outbox::Empty;
                socket.cut();
            });
        }
    }

    /// Lets `act` change what waits for a client, and counts it if its socket takes no more.
    pub(super) fn with_outbox<T>(&self, client: &mut Client, act: impl FnOnce(&mut Outbox, &Socket) -> T) -> T {
        let before = client.outbox.bytes();
        let done = act(&mut client.outbox, &client.socket);
        if client.is_flushing {
            self.counters.outbox_bytes.follow(before, client.outbox.bytes());
        }
        done
    }
}

/// As few as possible for whom so much waits together.
fn largest(mut waiting: Vec<(usize, Slot)>, mut excess: usize) -> Vec<Slot> {
    waiting.sort_unstable_by(|one, other| other.cmp(one));
    let chosen = waiting.into_iter().take_while(|(bytes, _)| {
        let is_needed = excess > 0;
        excess = excess.saturating_sub(*bytes);
        is_needed
    });
    chosen.map(|(_, slot)| slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_most_go_first_and_no_more_than_needed() {
        let waiting = || vec![(10, 1), (500, 2), (30, 3), (400, 4)];
        assert_eq!(largest(waiting(), 0), [0; 0]);
        assert_eq!(largest(waiting(), 1), [2]);
        assert_eq!(largest(waiting(), 900), [2, 4]);
        assert_eq!(largest(waiting(), 901), [2, 4, 3]);
        assert_eq!(largest(waiting(), usize::MAX), [2, 4, 3, 1]);
    }
}
