//! The generator's clients: all of them in one thread, which naps and looks at their sockets.
//!
//! Each kind of client is the same for each peer; what differs is what its dialect says and hears.

mod callers;
mod client;
mod idlers;
mod origin;
mod receivers;
mod visitors;

use std::time::Duration;

use anyhow::Result;
use trunkline_tests::bench::done::Done;

pub(crate) use callers::Callers;
pub(crate) use idlers::Idlers;
pub(crate) use receivers::Receivers;
pub(crate) use visitors::Visitors;

/// What a crowd does.
pub(crate) trait Play {
    /// Works so long, and until all that was begun is done.
    fn run_for(&mut self, length: Duration) -> Result<Done>;

    /// Looks at what has come since, and demands that it is nothing that was not asked for.
    fn look(&mut self) -> Result<()>;
}
