//! Marks of a timeline: a node or an app server came, drains, left, or was lost.
//!
//! ```text
//!            came                drains               left
//!  unknown ────────► here ─────────────────► leaving ──────► gone
//!                    │  ▲ back                               ▲
//!                    ▼  │                       lost         │
//!                    away ───────────────────────────────────┘
//! ```
//!
//! Pure: whoever looks says how each of them stands now.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Node or app server that came or went, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineMark {
    /// Time at which it was seen, in milliseconds since 1970.
    pub at_ms: u64,
    /// Node or app server.
    pub party: TimelineParty,
    /// Id of its start.
    pub id: String,
    /// Name of the node or app server.
    pub name: String,
    /// Change of its standing.
    pub change: PartyChange,
}

/// Kind of a party that comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimelineParty {
    /// Node of the fleet, itself included.
    Node,
    /// App server of any hub.
    App,
}

/// Change of the standing of a node or app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartyChange {
    /// It is there for the first time.
    Came,
    /// It is about to stop.
    Drains,
    /// It has stopped in order.
    Left,
    /// Nothing is heard of it.
    Missed,
    /// It is there again.
    Back,
    /// It is gone without a word.
    Lost,
}

/// Standing of a node or app server at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Here,
    Leaving,
    /// It gives no sign of life, and may come back.
    Away,
    /// It is gone, and had said so.
    Left,
    /// It is gone, and had not said so.
    Lost,
}

/// Nodes and app servers that are known, each with its standing at the last look.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    known: HashMap<(TimelineParty, String), Standing>,
}

impl Attendance {
    /// Notes how one of them stands now; returns what has changed.
    pub(super) fn note(&mut self, party: TimelineParty, id: &str, now: Standing) -> Option<PartyChange> {
        let key = (party, id.to_owned());
        let before = self.known.get(&key).copied();
        match now {
            Standing::Left | Standing::Lost => drop(self.known.remove(&key)),
            // One that was never there is not missed.
            Standing::Away if before.is_none() => {}
            // One that is about to stop need not be heard of.
            Standing::Away if before == Some(Standing::Leaving) => {}
            _ => drop(self.known.insert(key, now)),
        }
        change(before, now)
    }
}

/// Change between two standings, as a mark shows it.
fn change(before: Option<Standing>, now: Standing) -> Option<PartyChange> {
    match (before, now) {
        (Some(before), now) if before == now => None,
        (None, Standing::Here) => Some(PartyChange::Came),
        (Some(_), Standing::Here) => Some(PartyChange::Back),
        (_, Standing::Leaving) => Some(PartyChange::Drains),
        (Some(Standing::Here), Standing::Away) => Some(PartyChange::Missed),
        (None, _) | (_, Standing::Away) => None,
        (Some(Standing::Leaving), Standing::Lost) | (Some(_), Standing::Left) => Some(PartyChange::Left),
        (Some(_), Standing::Lost) => Some(PartyChange::Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Away, Here, Leaving, Left, Lost};

    /// Changes of an app server that stands so, look after look.
    fn changes(standings: &[Standing]) -> Vec<PartyChange> {
        let mut attendance = Attendance::default();
        standings.iter().filter_map(|now| attendance.note(TimelineParty::App, "a", *now)).collect()
    }

    #[test]
    fn one_that_stops_in_order_drains_and_leaves_and_one_that_dies_is_lost() {
        let [came, drains, left] = [PartyChange::Came, PartyChange::Drains, PartyChange::Left];
        assert_eq!(changes(&[Here, Here, Leaving, Leaving, Away, Left]), [came, drains, left]);
        assert_eq!(changes(&[Here, Leaving, Lost]), [came, drains, left], "its sockets end before its last word");
        assert_eq!(changes(&[Here, Left]), [came, left], "between two looks");
        assert_eq!(changes(&[Here, Lost]), [came, PartyChange::Lost]);
        assert_eq!(changes(&[Here, Away, Lost]), [came, PartyChange::Missed, PartyChange::Lost]);
    }

    #[test]
    fn one_that_is_missed_for_a_while_is_back() {
        let expected = [PartyChange::Came, PartyChange::Missed, PartyChange::Back];
        assert_eq!(changes(&[Here, Away, Away, Here, Here]), expected);
        assert_eq!(changes(&[Away, Away, Lost]), [], "one that was never there is not missed");
        assert_eq!(changes(&[Here, Lost, Here]), [PartyChange::Came, PartyChange::Lost, PartyChange::Came]);
    }

    #[test]
    fn those_that_are_gone_are_forgotten_and_a_node_is_no_app_server() {
        let mut attendance = Attendance::default();
        for party in [TimelineParty::Node, TimelineParty::App] {
            assert_eq!(attendance.note(party, "same", Here), Some(PartyChange::Came));
        }
        attendance.note(TimelineParty::Node, "same", Lost);
        attendance.note(TimelineParty::App, "never", Away);
        assert_eq!(attendance.known.len(), 1);
    }
}
