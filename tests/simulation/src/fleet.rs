//! Fleet of nodes that relay messages to each other, in virtual time.
//!
//! ```text
//!  seed ──► fleet schedule: clients, messages, faults ──► fleet world ──► process ──► peers ──► node ends
//!                                                             │            └─ clients
//!                                                             └─ every message is checked where it is sent and applied
//! ```
//!
//! Nodes start, stop, crash, freeze and are partitioned; links are cut, stall, and resume or exceed their window.
//!
//! Checks:
//! - No client gets a message twice, or a sender's messages out of order.
//! - A node is sent everything it may want, and nothing that its reported interest excludes.
//! - Confirmations to clients hold at every node.
//! - Messages queued for a node arrive in order, unless the session ended for a valid reason. Messages without room are
//!   counted.
//! - Rings stay within their limits, and answers match their requests.
//! - After the faults, all nodes agree on the members, and a message reaches every client.
//!
//! Each [`FleetMutant`] breaks one rule.

mod client;
mod fleet_mutant;
mod fleet_schedule;
mod fleet_world;
mod node_end;
mod post;
mod process;

pub use fleet_mutant::FleetMutant;
pub use fleet_schedule::{FleetSize, run_fleet};
pub use fleet_world::FleetOutcome;
