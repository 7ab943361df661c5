//! Hellos accepted by one port, from channels that wait for their first record, and from the last minutes.
//!
//! ```text
//!  hello ─► of the last minutes? ─ yes ─► taken before? ─ no ─► waits for its first record, and is remembered while
//!                └── no ─► refused           └── yes ─► refused          its minute is valid
//! ```
//!
//! A replayed hello opens no usable channel, but occupies a place while it waits. So a port accepts each hello only
//! once.

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use crate::handshake::{CLOCK_SKEW_MAX_MINUTES, HandshakeError};

/// Maximum number of channels that wait for their first record.
const WAITING_MAX: usize = 1024;

/// Time to remember a hello: as long as it could be replayed.
const KNOWN_MINUTES: u64 = 2 * CLOCK_SKEW_MAX_MINUTES + 1;

/// Maximum number of hellos to remember from one such period; beyond it, the oldest are dropped early.
const KNOWN_MAX: usize = 8192;

/// Hellos of one port, or of one group of key holders at that port. Clones share the same table.
#[derive(Debug, Clone, Default)]
pub struct HelloTable(Arc<Mutex<Hellos>>);

#[derive(Debug, Default)]
struct Hellos {
    waiting: usize,
    known: HashSet<Box<str>>,
    known_before: HashSet<Box<str>>,
    begun: u64,
}

impl Hellos {
    fn knows(&self, hello: &str) -> bool {
        self.known.contains(hello) || self.known_before.contains(hello)
    }

    fn enter(&mut self, hello: &str, minute: u64) -> Result<(), HandshakeError> {
        if self.knows(hello) {
            return Err(HandshakeError::Replayed);
        }
        if self.waiting >= WAITING_MAX {
            return Err(HandshakeError::Busy);
        }
        // A clock that is set back must not keep them for ever.
        if self.known.len() >= KNOWN_MAX || self.begun.abs_diff(minute) >= KNOWN_MINUTES {
            self.known_before = mem::take(&mut self.known);
            self.begun = minute;
        }
        self.known.insert(hello.into());
        self.waiting += 1;
        Ok(())
    }
}

impl HelloTable {
    pub(crate) fn knows(&self, hello: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).knows(hello)
    }

    /// Reserves a place until the sender's first record. The hello must be recent and have passed the handshake.
    pub(crate) fn enter(&self, hello: &str, minute: u64) -> Result<WaitingHello, HandshakeError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).enter(hello, minute)?;
        Ok(WaitingHello(self.clone()))
    }
}

#[derive(Debug)]
pub(crate) struct WaitingHello(HelloTable);

impl Drop for WaitingHello {
    fn drop(&mut self) {
        let mut hellos = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        hellos.waiting = hellos.waiting.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 29_000_000;

    fn fill(table: &HelloTable) -> Vec<WaitingHello> {
        (0..).map_while(|number: u32| table.enter(&number.to_string(), NOW).ok()).collect()
    }

    #[test]
    fn a_hello_is_valid_once_while_its_minute_is_recent() {
        let table = HelloTable::default();
        drop(table.enter("hello", NOW).unwrap());
        for minute in [NOW, NOW + 5, NOW + 10] {
            drop(table.enter(&format!("another of {minute}"), minute).unwrap());
            assert_eq!(table.enter("hello", minute).unwrap_err(), HandshakeError::Replayed, "{minute}");
        }
    }

    #[test]
    fn hellos_of_another_port_use_no_slot_of_this_port() {
        let (table, other_port) = (HelloTable::default(), HelloTable::default());
        let (elsewhere, here) = (fill(&other_port), fill(&table));
        assert_eq!((elsewhere.len(), here.len()), (WAITING_MAX, WAITING_MAX));
        assert_eq!(table.enter("one more", NOW).unwrap_err(), HandshakeError::Busy);
        drop(here);
        table.enter("one more", NOW).unwrap();
    }

    #[test]
    fn no_more_hellos_are_known_than_two_times_the_most() {
        let table = HelloTable::default();
        for number in 0..3 * KNOWN_MAX {
            drop(table.enter(&number.to_string(), NOW).unwrap());
        }
        let hellos = table.0.lock().unwrap();
        assert_eq!((hellos.known.len() + hellos.known_before.len(), hellos.waiting), (2 * KNOWN_MAX, 0));
    }
}
