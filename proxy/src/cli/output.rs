//! Standard output of the subcommands, whose reader may have enough before its end.

use std::io::{self, ErrorKind, Write};

/// Prints what a person or a script asked for. A reader that has seen enough, such as `head`, is no error.
pub(super) fn print(text: &str) {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => print_error(&format!("the output is lost: {error}")),
        _ => {}
    }
}

/// Prints a warning beside the output of the command.
#[expect(clippy::print_stderr, reason = "scripts read the output alone")]
pub(super) fn print_warning(text: &str) {
    eprintln!("warning: {text}");
}

/// Prints the error that the command ends with.
#[expect(clippy::print_stderr, reason = "logging may not have begun")]
pub(super) fn print_error(text: &str) {
    eprintln!("error: {text}");
}
