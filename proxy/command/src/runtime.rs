//! Runtime of the main thread.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Builds a single-threaded runtime, because shards have their own. First raises the limit of open files.
pub(super) fn runtime() -> io::Result<Runtime> {
    trunkline_process::open_files();
    Builder::new_current_thread().enable_all().build()
}
