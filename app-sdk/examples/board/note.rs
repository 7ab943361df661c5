//! Types sent to and received from clients: notes, people and votes.

use serde::{Deserialize, Serialize};
use trunkline::typescript::TS;

/// A new note, as sent by its author.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewNote {
    pub(crate) text: String,
    pub(crate) x: i32,
    pub(crate) y: i32,
}

/// A note on the board of a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub(crate) struct Note {
    pub(crate) id: String,
    pub(crate) author: String,
    pub(crate) text: String,
    pub(crate) x: i32,
    pub(crate) y: i32,
}

/// A connection in a room. A person with several tabs appears once per tab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub(crate) struct Person {
    pub(crate) connection: String,
    pub(crate) name: Option<String>,
}

/// A vote in a poll; `None` if the client did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub(crate) struct Vote {
    pub(crate) name: Option<String>,
    pub(crate) is_for: Option<bool>,
}
