//! Output of subcommands.

/// Prints what a person or a script asked for.
#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) fn print(text: &str) {
    println!("{text}");
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
