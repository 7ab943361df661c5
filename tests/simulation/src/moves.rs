//! Client connections that move between nodes, in virtual time.
//!
//! ```text
//!  visitor ◄═ socket ═► move node ◄── questions, states ──► move node
//!    replay at both ends    │ ownership                         │
//!                           └────────► move app ◄───────────────┘   a client's home, epochs of sends
//! ```
//!
//! What runs is what nodes, app servers and clients run: `Ownership`, `ClientHome`, `SendEpoch`, and the replay at both
//! ends. Sockets are cut, links between different ends deliver in any order, app servers and nodes are slow, nodes die
//! or drain, clients claim their connection at two nodes at once, give up and begin anew. What is checked: as long as a
//! connection lives, each message up and down comes once and in the order of its sender; no connection has two owners;
//! none is kept for ever by a node or an app server; each ends once; and where nothing but sockets breaks, none ends.
//! [`MoveMutant`]s break one rule each.

mod letter;
mod move_app;
mod move_mutant;
mod move_node;
mod move_schedule;
mod move_world;
mod visitor;

pub use move_mutant::MoveMutant;
pub use move_schedule::run_moves;
pub use move_world::MoveOutcome;
