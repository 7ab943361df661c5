//! A fleet of nodes that pass messages on to each other, in virtual time.
//!
//! ```text
//!  seed ──► fleet schedule: clients, messages, faults ──► fleet world ──► process ──► peers ──► node ends
//!                                                             │            └─ clients
//!                                                             └─ every message is checked where it is sent and applied
//! ```
//!
//! Nodes come, go, crash, freeze and are split; links are cut, stall and resume or pass their window. What is checked:
//! no client gets a message twice, or those of a sender out of order; a node is sent what it may want and nothing that
//! it has told that it does not; what clients were told is so at every node; what was queued for it arrives, in order,
//! unless its session ended for a good reason; what finds no room is counted; rings stay within their bounds; answers
//! fit their questions; and once the faults stop, all nodes agree on who is there, and a message reaches every client.
//! [`FleetMutant`]s break one rule each.

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
