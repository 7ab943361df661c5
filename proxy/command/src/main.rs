#![forbid(unsafe_code)]
//! The `trunkline` command. The code is in the library of this crate.

use std::process::ExitCode;

/// Allocator of a node. After a burst of connections it returns memory to the system, unlike glibc's.
#[cfg(all(target_os = "linux", feature = "jemalloc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    trunkline_command::main()
}
