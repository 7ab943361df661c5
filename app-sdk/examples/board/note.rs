//! Notes, people and votes, as clients see them.

use serde::{Deserialize, Serialize};
use trunkline::typescript::TS;

/// A note as somebody writes it.
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

/// Somebody in a room; who has several tabs open is there several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub(crate) struct Person {
    pub(crate) connection: String,
    pub(crate) name: Option<String>,
}

/// An answer in a poll; `None` from who did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub(crate) struct Vote {
    pub(crate) name: Option<String>,
    pub(crate) is_for: Option<bool>,
}
