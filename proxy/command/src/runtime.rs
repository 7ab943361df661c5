//! Runtime of the main thread.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Builds a runtime with one thread: shards have their own.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
