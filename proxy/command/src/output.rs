//! Standard output of the subcommands, whose reader may have enough before its end.

use std::io::ErrorKind;

use tracing::Level;

use crate::logging::{formatted, write_error, write_output};
use crate::shown_text;

/// Prints what a person or a script asked for. A reader that has seen enough, such as `head`, is no error.
pub(super) fn print(text: &str) {
    match write_output(&shown_text::lines(text)) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => print_error(&format!("the output is lost: {error}")),
        _ => {}
    }
}

/// Prints a warning beside the output of the command.
#[expect(clippy::print_stderr, reason = "scripts read the output alone")]
pub(super) fn print_warning(text: &str) {
    eprintln!("warning: {}", shown_text::lines(text));
}

/// Prints advice to a person beside the output of the command.
#[expect(clippy::print_stderr, reason = "scripts read the output alone")]
pub(super) fn print_hint(text: &str) {
    eprintln!("hint: {}", shown_text::lines(text));
}

/// Prints a line about the node that begins to serve, in the form of its log.
pub(super) fn print_state(text: &str) {
    print(&formatted(Level::INFO, text).unwrap_or_else(|| text.to_owned()));
}

/// Prints the error that the command ends with, in the form of its log if it has one.
pub(super) fn print_error(text: &str) {
    // Errors of the command line begin so.
    let text = text.strip_prefix("error: ").unwrap_or(text).trim_end();
    write_error(&formatted(Level::ERROR, text).unwrap_or_else(|| format!("error: {}", shown_text::lines(text))));
}

/// Text of an error with those of its causes, except where the error has said them itself.
pub(super) fn text_with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}
