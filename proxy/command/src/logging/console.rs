//! Lines that are no events of the log, and are printed whatever levels it has: addresses, a panic, the error that ends
//! the process. They take the form of the log, so that its reader never meets another one.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::log_format::LogFormat;
use super::log_line::plain_json;

/// Target of these lines.
const TARGET: &str = "trunkline";

/// Whether they are JSON; one value for the process, which has one log.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Sets the format of these lines, from now on also of panics.
pub(crate) fn set_format(format: LogFormat) {
    if format == LogFormat::Json && !IS_JSON.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|panic| {
            // There is nobody to tell if standard error is closed.
            drop(writeln!(io::stderr(), "{}", json_line(Level::ERROR, &text_of(panic))));
        }));
    }
}

/// Formats a line if they are JSON; `None` where the text itself is for people.
#[must_use]
pub(crate) fn formatted(level: Level, text: &str) -> Option<String> {
    IS_JSON.load(Ordering::Relaxed).then(|| json_line(level, text))
}

fn json_line(level: Level, text: &str) -> String {
    let mut time = String::new();
    // A clock before 1970 leaves it empty.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    plain_json(&time, level, TARGET, text)
}

fn text_of(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let text = panic.payload_as_str().unwrap_or("without a text");
    format!("thread {thread:?} panicked{place}: {text}")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_text_of_several_lines_is_one_line_with_the_keys_of_the_log() {
        let line = json_line(Level::ERROR, "unexpected argument\n\nUsage: \"trunkline\"");
        assert_eq!(line.lines().count(), 1, "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["level"], &read["target"]), (&Value::from("error"), &Value::from(TARGET)));
        assert_eq!(read["message"], "unexpected argument\n\nUsage: \"trunkline\"");
        assert!(read["time"].is_string() && read.as_object().is_some_and(|keys| keys.contains_key("node")), "{line}");
    }
}
