//! Simulations of the fleet, of moves and of sessions, with planted faults that each of them must find.

mod fleets;
mod moves;
mod sessions;
