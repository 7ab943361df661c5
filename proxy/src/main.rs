#![forbid(unsafe_code)]
//! The `trunkline` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline_proxy::cli::main()
}
