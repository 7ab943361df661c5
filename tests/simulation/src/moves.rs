//! Client connections that move between nodes, in virtual time.
//!
//! ```text
//!  visitor ◄═ socket ═► move node ◄── questions, states ──► move node
//!    replay at both ends    │ ownership                         │
//!                           └────────► move app ◄───────────────┘   a client's home, epochs of sends
//! ```
//!
//! Runs the real state machines of nodes, app servers and clients: `Ownership`, `ClientHome`, `ClientWindow`,
//! `SendEpoch`, and the replay at both ends. Sockets are cut, links are replaced, different links deliver in any
//! relative order, app servers and nodes are slow, nodes die or drain, and clients claim their connection at two nodes
//! simultaneously, give up and start again.
//!
//! Checks:
//! - While a connection lives, each message in both directions arrives once, in the order of its sender.
//! - No connection has two owners.
//! - No node or app server keeps a connection forever, and each ends once.
//! - If only sockets break, no connection ends.
//! - At most a window is under way to one client, and no sender waits forever for a window.
//!
//! Each [`MoveMutant`] breaks one rule.

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
