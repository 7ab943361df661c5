//! What the command does besides running a node: look at a configuration, ask for a node's health.

mod check;
mod health;

pub use check::check;
pub use health::{HealthError, health};
