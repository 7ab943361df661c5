#![forbid(unsafe_code)]
//! Simulates links that are cut, delayed, frozen and restarted, to test the protocol's session state machine.
//!
//! ```text
//!  seed ──► schedule: time, traffic, faults ──► world ──► slot ──► end (proxy) ◄═ wire ═► end (app server)
//!                                                  │                    └──────── ledger ────────┘
//!                                                  └─ dialling            every frame is checked on delivery
//! ```
//!
//! Checks:
//! - In each direction of a session, no frame is lost, duplicated or reordered.
//! - No frame is acknowledged twice, or before its consumer took it.
//! - Rings stay within their limits.
//! - Sessions end according to the rules and in time, and return exactly the unacknowledged frames.
//! - After the faults, everything arrives.
//!
//! Each [`Mutant`] breaks one rule, and all must be caught.
//!
//! | module | contents |
//! |---|---|
//! | `random` | seeded random numbers |
//! | `mutant` | intentionally broken rules |
//! | `ledger` | frames queued and delivered |
//! | `wire` | sockets between the ends |
//! | `end` | the end of a slot |
//! | `slot` | two ends, their sockets and dials |
//! | `world` | all slots, and time |
//! | `dialling` | dials of the proxy |
//! | `schedule` | traffic and faults of one seed |
//! | `fleet` | many nodes with links between all of them |
//! | `moves` | client connections that move between nodes |

#![expect(clippy::indexing_slicing, reason = "a simulation that loses track of its own slots and ends must not go on")]

mod dialling;
mod end;
mod fleet;
mod ledger;
mod moves;
mod mutant;
mod random;
mod schedule;
mod slot;
mod wire;
mod world;

pub use fleet::{FleetMutant, FleetOutcome, FleetSize, run_fleet};
pub use ledger::Violation;
pub use moves::{MoveMutant, MoveOutcome, run_moves};
pub use mutant::Mutant;
pub use schedule::{Outcome, run};
