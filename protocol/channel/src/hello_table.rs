//! Hellos that one port has taken: of the channels whose first record has not come, and of those of the last minutes.
//!
//! ```text
//!  hello ─► dated? ── yes ─► taken before? ── yes ─► refused
//!             │                └── no ─► waits for its first record, and is known for as long as its date is good
//!             └──── no ─► waits in the smaller room of peers that write no date
//! ```
//!
//! Whoever plays recorded hellos can't speak on what they open, but each takes a place while it waits. One with a date
//! is good once. One without is good as often as it is played, because peers of older releases write none; its room is
//! another, so it keeps no peer out that writes a date.

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use crate::handshake::HandshakeError;
use crate::hello_date::CLOCK_SKEW_MAX_MINUTES;

/// Most channels whose first record has not come.
const WAITING_MAX: usize = 1024;

/// Most of them whose hello had no date, or one that is not of the last minutes.
const UNDATED_WAITING_MAX: usize = 128;

/// Time for which a dated hello is known: as long as it could be played again.
const KNOWN_MINUTES: u64 = 2 * CLOCK_SKEW_MAX_MINUTES + 1;

/// Most dated hellos of one such time that are known; with more of them, the oldest are forgotten early.
const KNOWN_MAX: usize = 8192;

/// Hellos of one port. Its clones are the same table.
#[derive(Debug, Clone, Default)]
pub struct HelloTable(Arc<Mutex<Hellos>>);

#[derive(Debug, Default)]
struct Hellos {
    /// Channels with a dated hello whose first record has not come.
    waiting: usize,
    undated: HashSet<Box<str>>,
    known: HashSet<Box<str>>,
    known_before: HashSet<Box<str>>,
    /// Minute in which `known` was begun.
    begun: u64,
}

impl Hellos {
    fn knows(&self, hello: &str) -> bool {
        self.known.contains(hello) || self.known_before.contains(hello)
    }

    fn enter_dated(&mut self, hello: &str, minute: u64) -> Result<(), HandshakeError> {
        if self.knows(hello) {
            return Err(HandshakeError::Replayed);
        }
        if self.waiting >= WAITING_MAX {
            return Err(HandshakeError::Busy);
        }
        // A clock that was set back must not keep them for ever.
        if self.known.len() >= KNOWN_MAX || self.begun.abs_diff(minute) >= KNOWN_MINUTES {
            self.known_before = mem::take(&mut self.known);
            self.begun = minute;
        }
        self.known.insert(hello.into());
        self.waiting += 1;
        Ok(())
    }

    fn enter_undated(&mut self, hello: &str) -> Result<(), HandshakeError> {
        let is_new = self.undated.len() < UNDATED_WAITING_MAX && self.undated.insert(hello.into());
        if is_new { Ok(()) } else { Err(HandshakeError::Busy) }
    }
}

impl HelloTable {
    /// Whether a hello was taken already, and had a date.
    pub(crate) fn knows(&self, hello: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).knows(hello)
    }

    /// Gives a hello that one of the keys has opened a place until its sender's first record.
    pub(crate) fn enter(&self, hello: &str, is_dated: bool, minute: u64) -> Result<WaitingHello, HandshakeError> {
        let mut hellos = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let undated = match is_dated {
            true => hellos.enter_dated(hello, minute).map(|()| None),
            false => hellos.enter_undated(hello).map(|()| Some(hello.into())),
        }?;
        Ok(WaitingHello { table: self.clone(), undated })
    }
}

/// Place of a hello among those that wait.
#[derive(Debug)]
pub(crate) struct WaitingHello {
    table: HelloTable,
    /// Its text, if it has no date.
    undated: Option<Box<str>>,
}

impl Drop for WaitingHello {
    fn drop(&mut self) {
        let mut hellos = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.undated {
            None => hellos.waiting = hellos.waiting.saturating_sub(1),
            Some(hello) => drop(hellos.undated.remove(hello)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 29_000_000;

    fn fill(table: &HelloTable, is_dated: bool) -> Vec<WaitingHello> {
        (0..).map_while(|number: u32| table.enter(&format!("{is_dated} {number}"), is_dated, NOW).ok()).collect()
    }

    #[test]
    fn a_dated_hello_is_good_once_for_as_long_as_its_date_is() {
        let table = HelloTable::default();
        drop(table.enter("hello", true, NOW).unwrap());
        for minute in [NOW, NOW + 5, NOW + 10] {
            drop(table.enter(&format!("another of {minute}"), true, minute).unwrap());
            assert_eq!(table.enter("hello", true, minute).unwrap_err(), HandshakeError::Replayed, "{minute}");
        }
    }

    #[test]
    fn a_hello_without_a_date_has_one_place_however_often_it_is_played() {
        let table = HelloTable::default();
        let first = table.enter("hello", false, NOW).unwrap();
        assert_eq!(table.enter("hello", false, NOW).unwrap_err(), HandshakeError::Busy);
        drop(first);
        table.enter("hello", false, NOW).unwrap();
    }

    #[test]
    fn hellos_without_a_date_and_those_of_another_port_take_no_place_of_dated_ones() {
        let (table, other_port) = (HelloTable::default(), HelloTable::default());
        let (undated, elsewhere) = (fill(&table, false), fill(&other_port, true));
        let dated = fill(&table, true);
        assert_eq!((undated.len(), elsewhere.len(), dated.len()), (UNDATED_WAITING_MAX, WAITING_MAX, WAITING_MAX));
        drop(dated);
        table.enter("one more", true, NOW).unwrap();
    }

    #[test]
    fn no_more_hellos_are_known_than_two_times_the_most() {
        let table = HelloTable::default();
        for number in 0..3 * KNOWN_MAX {
            drop(table.enter(&number.to_string(), true, NOW).unwrap());
        }
        let hellos = table.0.lock().unwrap();
        assert_eq!((hellos.known.len() + hellos.known_before.len(), hellos.waiting), (2 * KNOWN_MAX, 0));
    }
}
