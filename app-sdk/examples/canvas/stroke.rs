//! Strokes, as clients send and receive them.

use serde::{Deserialize, Serialize};
use trunkline::HubError;

/// Width and height of the canvas in its own units. Each page scales it.
const SIZE: (u16, u16) = (1250, 1000);

const COLOURS: u8 = 6;
const WIDTHS: u8 = 3;
const ID_MAX_BYTES: usize = 40;
const POINTS_MAX: usize = 1000;

/// A stroke, or a part of a stroke in progress. The page that draws it creates its ID, so that it can safely send the
/// stroke again when a call got no answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stroke {
    pub(crate) id: String,
    pub(crate) colour: u8,
    pub(crate) width: u8,
    pub(crate) points: Vec<(u16, u16)>,
}

impl Stroke {
    /// Validates a stroke from a client. The error states the limits.
    pub(crate) fn checked(self) -> Result<Self, HubError> {
        if !(1..=ID_MAX_BYTES).contains(&self.id.len()) {
            return Err(HubError::new(format!("the id of a stroke has 1 to {ID_MAX_BYTES} bytes")));
        }
        if self.colour >= COLOURS || self.width >= WIDTHS {
            return Err(HubError::new(format!("there are colours below {COLOURS} and widths below {WIDTHS}")));
        }
        if !(1..=POINTS_MAX).contains(&self.points.len()) {
            return Err(HubError::new(format!("a stroke has 1 to {POINTS_MAX} points")));
        }
        if self.points.iter().any(|(x, y)| *x > SIZE.0 || *y > SIZE.1) {
            return Err(HubError::new(format!("the canvas ends at {}, {}", SIZE.0, SIZE.1)));
        }
        Ok(self)
    }
}
