//! Output of the subcommands. Readers may close it early.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use tracing::Level;

use crate::logging::{formatted, write_error, write_output};
use crate::shown_text;

/// Prints a command's result. A reader that closes early, such as `head`, is not an error.
pub(super) fn print(text: &str) {
    match write_output(&shown_text::lines(text)) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => print_error(&format!("the output is lost: {error}")),
        _ => {}
    }
}

/// Writes to standard output without changes. Fails if the reader is gone.
pub(super) fn put(bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes.as_ref()).and_then(|()| out.flush()).context("cannot write the output")
}

#[expect(clippy::print_stderr, reason = "scripts read the output alone")]
pub(super) fn print_warning(text: &str) {
    eprintln!("warning: {}", shown_text::lines(text));
}

#[expect(clippy::print_stderr, reason = "scripts read the output alone")]
pub(super) fn print_hint(text: &str) {
    eprintln!("hint: {}", shown_text::lines(text));
}

/// Prints a status line of a starting node, in the format of its log.
pub(super) fn print_state(text: &str) {
    print(&formatted(Level::INFO, text).unwrap_or_else(|| text.to_owned()));
}

/// Prints the final error of the command, in the format of its log, if any.
pub(super) fn print_error(text: &str) {
    // Command line errors already have this prefix.
    let text = text.strip_prefix("error: ").unwrap_or(text).trim_end();
    write_error(&formatted(Level::ERROR, text).unwrap_or_else(|| format!("error: {}", shown_text::lines(text))));
}

/// Text of an error with its causes, skipping causes already contained in it.
pub(super) fn text_with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}
