//! Marks of a timeline: a node or app server arrived, drained, left or was lost.
//!
//! ```text
//!            came                drains               left
//!  unknown ────────► here ─────────────────► leaving ──────► gone
//!                    │  ▲ back                               ▲
//!                    ▼  │                       lost         │
//!                    away ───────────────────────────────────┘
//! ```
//!
//! Pure: the observed state of each party is an argument.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Arrival or departure of a node or app server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineMark {
    /// Time of the observation, in milliseconds since 1970.
    pub at_ms: u64,
    /// Kind of party: node or app server.
    pub party: TimelineParty,
    /// Boot id or instance id.
    pub id: String,
    /// Name of the node or app server.
    pub name: String,
    /// Observed change of its standing.
    pub change: PartyChange,
}

/// Kind of a party in the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimelineParty {
    /// Node of the fleet, this one included.
    Node,
    /// App server of any hub.
    App,
}

/// Change of a party's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartyChange {
    /// Seen for the first time.
    Came,
    /// Preparing to stop, still connected.
    Drains,
    /// Stopped after a drain or goodbye.
    Left,
    /// No longer reachable, may return.
    Missed,
    /// Reachable again after an absence.
    Back,
    /// Gone without a goodbye.
    Lost,
}

/// Standing of a node or app server when last checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Here,
    Leaving,
    Away,
    /// Gone after a goodbye.
    Left,
    Lost,
}

/// Known parties with their last standing.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    known: HashMap<(TimelineParty, String), Standing>,
}

impl Attendance {
    /// Records a party's current standing; returns the change, if any.
    pub(super) fn note_standing(&mut self, party: TimelineParty, id: &str, now: Standing) -> Option<PartyChange> {
        let key = (party, id.to_owned());
        let before = self.known.get(&key).copied();
        match now {
            Standing::Left | Standing::Lost => drop(self.known.remove(&key)),
            // A party that was never present is not missed.
            Standing::Away if before.is_none() => {}
            // A party about to stop may be silent.
            Standing::Away if before == Some(Standing::Leaving) => {}
            _ => drop(self.known.insert(key, now)),
        }
        change(before, now)
    }
}

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

    /// Changes of an app server for consecutive standings.
    fn changes(standings: &[Standing]) -> Vec<PartyChange> {
        let mut attendance = Attendance::default();
        standings.iter().filter_map(|now| attendance.note_standing(TimelineParty::App, "a", *now)).collect()
    }

    #[test]
    fn a_graceful_stop_drains_and_leaves_and_a_crash_is_lost() {
        let [came, drains, left] = [PartyChange::Came, PartyChange::Drains, PartyChange::Left];
        assert_eq!(changes(&[Here, Here, Leaving, Leaving, Away, Left]), [came, drains, left]);
        assert_eq!(changes(&[Here, Leaving, Lost]), [came, drains, left], "its sockets end before its last word");
        assert_eq!(changes(&[Here, Left]), [came, left], "between two looks");
        assert_eq!(changes(&[Here, Lost]), [came, PartyChange::Lost]);
        assert_eq!(changes(&[Here, Away, Lost]), [came, PartyChange::Missed, PartyChange::Lost]);
    }

    #[test]
    fn a_party_that_was_away_for_a_while_is_back() {
        let expected = [PartyChange::Came, PartyChange::Missed, PartyChange::Back];
        assert_eq!(changes(&[Here, Away, Away, Here, Here]), expected);
        assert_eq!(changes(&[Away, Away, Lost]), [], "one that was never there is not missed");
        assert_eq!(changes(&[Here, Lost, Here]), [PartyChange::Came, PartyChange::Lost, PartyChange::Came]);
    }

    #[test]
    fn departed_parties_are_removed_and_nodes_are_distinct_from_app_servers() {
        let mut attendance = Attendance::default();
        for party in [TimelineParty::Node, TimelineParty::App] {
            assert_eq!(attendance.note_standing(party, "same", Here), Some(PartyChange::Came));
        }
        attendance.note_standing(TimelineParty::Node, "same", Lost);
        attendance.note_standing(TimelineParty::App, "never", Away);
        assert_eq!(attendance.known.len(), 1);
    }
}
