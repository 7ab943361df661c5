//! Runtime of the main thread.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Builds a runtime with one thread: shards have their own. The limit of open files is raised before.
pub(super) fn runtime() -> io::Result<Runtime> {
    trunkline_process::open_files();
    Builder::new_current_thread().enable_all().build()
}
