#![forbid(unsafe_code)]
//! Simulates links that are cut, delayed, frozen and restarted, against the session machine of the protocol.
//!
//! ```text
//!  seed ──► schedule: time, traffic, faults ──► world ──► slot ──► end (proxy) ◄═ wire ═► end (app server)
//!                                                  │                    └──────── ledger ────────┘
//!                                                  └─ dialling            every frame is checked as it comes out
//! ```
//!
//! What is checked: in each direction of a session no frame is lost, none comes twice, none out of order; nothing is
//! acknowledged before its consumer took it, or twice; rings stay within their bounds; sessions end by the rules and
//! no later; what an ended session gives back is all that was not acknowledged; and once the faults stop, everything
//! arrives. [`Mutant`]s break one rule each, and must all be caught.
//!
//! | module | what it holds |
//! |---|---|
//! | `random` | seeded random numbers |
//! | `mutant` | rules that are broken on purpose |
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
