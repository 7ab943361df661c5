//! Log of the process: lines go through a bounded queue to a standard stream. A hanging reader delays neither
//! logging threads nor panics nor process exit.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::line_queue::{LineLosses, LinePriority, LineQueue, LineSink};

/// Time limit for writing remaining lines at process exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a panic waits for its message to be written.
const PANIC_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Pause after a non-blocking stream has refused bytes.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);
static AUDIT_LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Number of log lines dropped because their reader was too slow or gone.
pub fn log_lines_dropped() -> u64 {
    LOG_LINES_DROPPED.load(Ordering::Relaxed)
}

/// Number of audit log lines that were lost.
pub fn audit_lines_lost() -> u64 {
    AUDIT_LINES_LOST.load(Ordering::Relaxed)
}

/// Counts a lost line of the audit log.
pub fn count_lost_audit_line() {
    AUDIT_LINES_LOST.fetch_add(1, Ordering::Relaxed);
}

/// Standard stream of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output of the process.
    Stdout,
    /// Standard error of the process.
    Stderr,
}

/// Log of a process. Lines go through a bounded queue to a standard stream and are dropped if the queue is full; a
/// notice in the log reports the number. Dropping it writes the remaining lines within a second.
///
/// ```no_run
/// # use trunkline_process::LogQueue;
/// let log = LogQueue::stderr()?;
/// tracing_subscriber::fmt().with_writer(log.writer()).with_ansi(log.has_colours()).init();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct LogQueue {
    stream: LogStream,
    queue: LineQueue,
}

impl LogQueue {
    /// Starts a log on standard error that also receives panic messages. Fails if the system can't start a thread.
    pub fn stderr() -> io::Result<Self> {
        Self::with_panics(LogStream::Stderr)
    }

    /// Starts a log on standard output that also receives panic messages. Fails if the system can't start a thread.
    pub fn stdout() -> io::Result<Self> {
        Self::with_panics(LogStream::Stdout)
    }

    fn with_panics(stream: LogStream) -> io::Result<Self> {
        let notice = |lost| {
            format!(
                " WARN trunkline_process: log lines dropped: the reader of the log is too slow \
                            lines={lost}"
            )
        };
        let log = Self::start(stream, notice)?;
        log.take_panics(panic_text);
        Ok(log)
    }

    /// Starts a log. `notice` returns the line that reports dropped lines. Fails if the system can't start a thread.
    pub fn start(stream: LogStream, notice: impl Fn(u64) -> String + Send + Sync + 'static) -> io::Result<Self> {
        let name = if stream == LogStream::Stdout { "log-stdout" } else { "log-stderr" };
        Ok(Self { stream, queue: LineQueue::start(name, stream, LogLosses(notice))? })
    }

    /// Replaces the standard panic hook: messages go to this log before all waiting lines.
    pub fn take_panics(&self, text: impl Fn(&PanicHookInfo<'_>) -> String + Send + Sync + 'static) {
        let queue = self.queue.clone();
        std::panic::set_hook(Box::new(move |panic| {
            queue.push(text(panic) + "\n", LinePriority::Urgent);
            queue.flush_urgent(PANIC_FLUSH_TIMEOUT);
        }));
    }

    /// Returns a factory of writers for `tracing_subscriber`.
    pub fn writer(&self) -> impl Fn() -> LogWriter + Clone + Send + Sync + 'static {
        let queue = self.queue.clone();
        move || LogWriter::new(queue.clone(), LinePriority::Normal)
    }

    /// The queue of lines.
    #[must_use]
    pub fn lines(&self) -> &LineQueue {
        &self.queue
    }

    /// Whether lines may be coloured: the stream is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn has_colours(&self) -> bool {
        let is_terminal = match self.stream {
            LogStream::Stdout => io::stdout().is_terminal(),
            LogStream::Stderr => io::stderr().is_terminal(),
        };
        is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Waits up to a second until all lines are written.
    pub fn flush(&self) {
        self.queue.flush(FLUSH_TIMEOUT);
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writer of log lines. Each write is one line and never blocks.
#[derive(Debug, Clone)]
pub struct LogWriter {
    queue: LineQueue,
    priority: LinePriority,
}

impl LogWriter {
    /// Creates a writer for lines of this priority.
    #[must_use]
    pub fn new(queue: LineQueue, priority: LinePriority) -> Self {
        Self { queue, priority }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.priority);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LineSink for LogStream {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => write_all(&mut io::stdout(), line),
            Self::Stderr => write_all(&mut io::stderr(), line),
        }
    }

    fn reopen(&mut self) {
        // Standard streams stay open.
    }
}

/// Writes a line, also to a stream made non-blocking by another process.
fn write_all(stream: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    loop {
        let outcome = if rest.is_empty() { stream.flush().map(|()| 0) } else { stream.write(rest) };
        match outcome {
            Ok(_) if rest.is_empty() => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(REFUSED_PAUSE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Losses of a log, which are counted and reported by a line.
struct LogLosses<N>(N);

impl<N: Fn(u64) -> String + Send + Sync + 'static> LineLosses for LogLosses<N> {
    fn lost(&self, _line: &[u8], priority: LinePriority, _error: &io::Error) {
        LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        // Lines of this priority belong to the audit log.
        if priority == LinePriority::Kept {
            count_lost_audit_line();
        }
    }

    fn notice(&self, lost: u64) -> Option<String> {
        Some((self.0)(lost) + "\n")
    }
}

/// Panic message in the format of the standard hook, with a backtrace if `RUST_BACKTRACE` requests it.
pub fn panic_text(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let text = panic.payload_as_str().unwrap_or("Box<dyn Any>");
    let backtrace = Backtrace::capture();
    let shown: &dyn fmt::Display = if backtrace.status() == BacktraceStatus::Captured { &backtrace } else { &"" };
    let text = format!("thread '{}' panicked{place}:\n{text}\n{shown}", thread.name().unwrap_or("<unnamed>"));
    text.trim_end().to_owned()
}

/// Whether a character is shown as nothing, and does something instead: C0, DEL and C1, ends of lines, and bidi marks.
#[must_use]
pub fn is_steering(char: char) -> bool {
    let is_line_end = matches!(char, '\u{2028}' | '\u{2029}');
    let is_bidi_mark =
        matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || is_line_end || is_bidi_mark
}
