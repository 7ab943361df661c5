//! What the command does besides running a node: look at a configuration, ask for a node's health, tell what a fleet
//! needs, show one, speak to whoever supervises it.

mod check;
mod health;
mod key_file;
mod size;
mod supervisor;
mod top;

pub use check::check;
pub use health::{HealthError, health};
pub use key_file::{KeyFileError, make_key_file};
pub use size::{SizeArgs, TooLittleMemory, size};
pub use supervisor::{News, feed_watchdog, handed, tell};
pub use top::{TopArgs, TopError, top};
