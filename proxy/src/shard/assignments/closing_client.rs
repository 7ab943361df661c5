//! Client connections that are closed, and whose sockets have not ended: each has some seconds for that.

use std::collections::VecDeque;

use crate::shard::slot::{Serial, Slot};
use crate::shard::spare_room::give_back;

/// Ticks that a client may take to answer our close; as the official server has it.
const CLOSE_TIMEOUT_TICKS: u32 = 5;

/// Clients in the order in which they were closed, with the tick at which the socket of each is cut.
#[derive(Debug, Default)]
pub(crate) struct ClosingClients(VecDeque<(u32, Slot, Serial)>);

impl ClosingClients {
    pub(crate) fn push(&mut self, slot: Slot, serial: Serial, now: u32) {
        self.0.push_back((now.saturating_add(CLOSE_TIMEOUT_TICKS), slot, serial));
    }

    /// Takes the clients whose time is over, whether or not they have ended meanwhile.
    pub(crate) fn take_overdue(&mut self, now: u32) -> Vec<(Slot, Serial)> {
        let overdue = std::iter::from_fn(|| self.0.pop_front_if(|(until, ..)| *until <= now));
        let overdue = overdue.map(|(_, slot, serial)| (slot, serial)).collect();
        give_back(&mut self.0);
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_overdue_once_some_seconds_after_its_close() {
        let mut closing = ClosingClients::default();
        closing.push(1, 10, 100);
        closing.push(2, 20, 101);
        assert_eq!(closing.take_overdue(104), []);
        assert_eq!(closing.take_overdue(105), [(1, 10)]);
        assert_eq!(closing.take_overdue(200), [(2, 20)]);
        assert_eq!(closing.take_overdue(300), []);
    }
}
