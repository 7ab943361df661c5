#![forbid(unsafe_code)]
//! The `trunkline` command: its code is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline_proxy::cli::main()
}
