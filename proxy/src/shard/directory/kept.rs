//! What of a client connection is seldom looked at: what another app server has to be told, its pending calls, and
//! whether it is read.

use std::rc::Rc;

use tokio::sync::Notify;
use trunkline_protocol::manifest::{ITEMS_HEADER, MIGRATE_FROM_HEADER};
use trunkline_protocol::service::OpenConnection;

use super::{Calls, Opening};

/// Why a client is not read. Bytes that it sends meanwhile wait in its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Hold {
    /// Its app server wants it paused.
    App = 1,
    /// It has no app server.
    Homeless = 2,
    /// Too many of its calls are not answered.
    Calls = 4,
    /// Its app server is about to hand it over.
    Leaving = 8,
}

/// All reasons why a client is not read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holds(u8);

impl Holds {
    /// Whether this is one of them.
    #[must_use]
    pub(crate) fn contains(self, hold: Hold) -> bool {
        self.0 & hold as u8 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub(crate) fn are_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn add(&mut self, hold: Hold) {
        self.0 |= hold as u8;
    }

    pub(super) fn remove(&mut self, hold: Hold) {
        self.0 &= !(hold as u8);
    }
}

/// What is seldom looked at.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// How it was opened: what another app server is told of it, and people who look. `None` in a node inside an app.
    pub opening: Option<Opening>,
    /// Its calls that are not answered.
    pub calls: Calls,
    /// What the app server that it comes from hands over with it.
    pub items: Option<Box<str>>,
    /// When it was opened, in microseconds since the node started.
    pub opened_us: u64,
    pub(super) gate: Option<Rc<Notify>>,
}

impl Kept {
    /// The frame that opens it at another app server: `from` names the one that had it, if its client knows that it is
    /// open. What was handed over goes along.
    pub(crate) fn open_again(&mut self, from: Option<&str>) -> Option<OpenConnection> {
        let mut open = self.opening.as_ref()?.read()?;
        if let Some(from) = from {
            let mut add = |name: &'static str, value: &str| open.headers.push((name.into(), vec![value.into()]));
            add(MIGRATE_FROM_HEADER, from);
            if let Some(items) = self.items.take() {
                add(ITEMS_HEADER, &items);
            }
        }
        Some(open)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Alike;
    use super::super::opening::tests::open;
    use super::*;

    #[test]
    fn another_app_server_is_told_the_same_and_where_it_comes_from() {
        let mut kept = Kept::default();
        let open = open("id", "me");
        kept.opening = Some(Alike::default().keep(&open));
        kept.items = Some("mine".into());
        assert_eq!(kept.open_again(None), Some(open));
        let moved = kept.open_again(Some("old")).unwrap();
        let [.., from, items] = moved.headers.as_slice() else { panic!("{moved:?}") };
        assert_eq!(*from, (MIGRATE_FROM_HEADER.into(), vec!["old".into()]));
        assert_eq!(*items, (ITEMS_HEADER.into(), vec!["mine".into()]));
        assert_eq!(kept.open_again(Some("old")).unwrap().headers.len(), 3, "items go along once");
    }

    #[test]
    fn it_is_read_when_no_reason_is_left() {
        let mut holds = Holds::default();
        holds.add(Hold::App);
        holds.add(Hold::Calls);
        holds.remove(Hold::App);
        assert!(!holds.are_none() && holds.contains(Hold::Calls) && !holds.contains(Hold::App));
        holds.remove(Hold::Calls);
        assert!(holds.are_none());
    }
}
