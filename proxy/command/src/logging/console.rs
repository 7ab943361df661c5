//! Lines outside of the log's levels: addresses, a panic, the error that ends the process. They use the log's format,
//! and once the log has started, its queue.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use trunkline_process::{LinePriority, LogQueue, LogStream, log_lines_dropped, panic_text};

use super::log_line::{LogFormat, plain_line};

const TARGET: &str = "trunkline";

/// Whether these lines are JSON; a single value, because a process has one log.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Standard error and standard output, once the log has started.
static STREAMS: OnceLock<[LogQueue; 2]> = OnceLock::new();

pub(crate) fn set_format(format: LogFormat) {
    if format == LogFormat::Json && !IS_JSON.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|panic| {
            // Standard error may be closed, which leaves no way to report it.
            drop(writeln!(io::stderr(), "{}", json_line(Level::ERROR, &text_of(panic))));
        }));
    }
}

/// From now on writes the standard streams in separate threads. Returns the log.
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

/// Writes a line to standard output, in a separate thread once the log has started.
pub(crate) fn write_output(line: &str) -> io::Result<()> {
    let Some([_, output]) = STREAMS.get() else { return writeln!(io::stdout(), "{line}") };
    output.lines().push(format!("{line}\n"), LinePriority::Normal);
    Ok(())
}

/// Writes a line to standard error after the log's waiting lines, even if their queue is full.
pub(crate) fn write_error(line: &str) {
    match STREAMS.get() {
        Some([error, _]) => drop(error.lines().push(format!("{line}\n"), LinePriority::Kept)),
        // Standard error may be closed, which leaves no way to report it.
        None => drop(writeln!(io::stderr(), "{line}")),
    }
}

pub(super) fn flush(deadline: Instant) {
    for stream in STREAMS.get().into_iter().flatten() {
        stream.lines().flush(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Formats a line in JSON mode; `None` if the text is printed as is.
pub(crate) fn formatted(level: Level, text: &str) -> Option<String> {
    IS_JSON.load(Ordering::Relaxed).then(|| json_line(level, text))
}

pub(super) fn line(level: Level, text: &str) -> String {
    let format = if IS_JSON.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Human };
    line_of(format, level, text)
}

fn json_line(level: Level, text: &str) -> String {
    line_of(LogFormat::Json, level, text)
}

fn line_of(format: LogFormat, level: Level, text: &str) -> String {
    let mut time = String::new();
    // A clock before 1970 leaves the time empty.
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
