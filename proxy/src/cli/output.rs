//! Output of subcommands.

/// Prints what a person or a script asked for.
#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) fn print(text: &str) {
    println!("{text}");
}

/// Prints the error that the command ends with.
#[expect(clippy::print_stderr, reason = "logging may not have begun")]
pub(super) fn print_error(text: &str) {
    eprintln!("error: {text}");
}
