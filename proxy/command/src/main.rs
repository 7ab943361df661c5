#![forbid(unsafe_code)]
//! The `trunkline` command: its code is in the library of this crate.

use std::process::ExitCode;

/// The allocator of a node. After a storm of connections it gives the memory back, of which glibc's keeps most.
#[cfg(all(target_os = "linux", feature = "jemalloc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    trunkline_command::main()
}
