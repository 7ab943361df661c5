//! Lines that are no events of the log, and are printed whatever levels it has: addresses, a panic, the error that ends
//! the process. They take the form of the log, so that its reader never meets another one. Once the log has begun they
//! go through its queue.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use trunkline_process::{LinePriority, LogQueue, LogStream, log_lines_dropped, panic_text};

use super::log_format::LogFormat;
use super::log_line::plain_line;

/// Target of these lines.
const TARGET: &str = "trunkline";

/// Whether they are JSON; one value for the process, which has one log.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Standard error and standard output of a process whose log has begun.
static STREAMS: OnceLock<[LogQueue; 2]> = OnceLock::new();

/// Sets the format of these lines, from now on also of panics.
pub(crate) fn set_format(format: LogFormat) {
    if format == LogFormat::Json && !IS_JSON.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|panic| {
            // There is nobody to tell if standard error is closed.
            drop(writeln!(io::stderr(), "{}", json_line(Level::ERROR, &text_of(panic))));
        }));
    }
}

/// Has the standard streams written by threads of their own from now on, and returns the log.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn begin_queues() -> io::Result<&'static LogQueue> {
    let notice = |stream: &'static str| {
        move |lost| {
            line(
                Level::WARN,
                &format!(
                    "log lines dropped, the reader of {stream} is too slow or gone: lines={lost} total={}",
                    log_lines_dropped()
                ),
            )
        }
    };
    let error = LogQueue::start(LogStream::Stderr, notice("standard error"))?;
    let output = LogQueue::start(LogStream::Stdout, notice("standard output"))?;
    let [error, _] = STREAMS.get_or_init(|| [error, output]);
    error.take_panics(|panic| formatted(Level::ERROR, &text_of(panic)).unwrap_or_else(|| panic_text(panic)));
    Ok(error)
}

/// Writes a line to standard output.
///
/// # Errors
/// When it can't be written. Where the log has begun a thread of its own writes it.
pub(crate) fn write_output(line: &str) -> io::Result<()> {
    let Some([_, output]) = STREAMS.get() else { return writeln!(io::stdout(), "{line}") };
    output.lines().push(format!("{line}\n"), LinePriority::Normal);
    Ok(())
}

/// Writes a line to standard error, behind those of the log that wait, also where their queue is full.
pub(crate) fn write_error(line: &str) {
    match STREAMS.get() {
        Some([error, _]) => drop(error.lines().push(format!("{line}\n"), LinePriority::Kept)),
        // There is nobody to tell if standard error is closed.
        None => drop(writeln!(io::stderr(), "{line}")),
    }
}

/// Waits for the lines of both streams that are left, until a deadline.
pub(super) fn flush(deadline: Instant) {
    for stream in STREAMS.get().into_iter().flatten() {
        stream.lines().flush(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Formats a line if they are JSON; `None` where the text itself is for people.
#[must_use]
pub(crate) fn formatted(level: Level, text: &str) -> Option<String> {
    IS_JSON.load(Ordering::Relaxed).then(|| json_line(level, text))
}

/// Formats a text as a line of the log.
#[must_use]
pub(super) fn line(level: Level, text: &str) -> String {
    let format = if IS_JSON.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Human };
    line_of(format, level, text)
}

fn json_line(level: Level, text: &str) -> String {
    line_of(LogFormat::Json, level, text)
}

fn line_of(format: LogFormat, level: Level, text: &str) -> String {
    let mut time = String::new();
    // A clock before 1970 leaves it empty.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    plain_line(format, &time, level, TARGET, text)
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
