//! Log of a node: human-readable or JSON lines, each with the node's name, and levels that can be changed at run time.
//!
//! The fields `hub` and `connection` (id of a client connection) identify the subject of a line.

mod audit_file;
mod console;
mod log_line;

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};
use trunkline_process::{LinePriority, LineQueue, LogQueue, LogWriter};
use trunkline_proxy::parts::{AUDIT_TARGET, LEVELS_MAX_BYTES, LogLevels};

use audit_file::{AuditFile, AuditLosses};
pub(crate) use console::{formatted, set_format, write_error, write_output};
use log_line::LineFormatter;
pub(crate) use log_line::{LOG_TARGET, LogFormat, name_node};

/// Time limit for writing remaining lines at process exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

const AUDIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Levels of the log, and the audit log; a single value, because a process has one log.
#[derive(Debug)]
pub(crate) struct Levels {
    audit: Option<LineQueue>,
    is_audit_required: bool,
    format: LogFormat,
    text: Mutex<String>,
    filter: reload::Handle<Targets, Registry>,
}

const NO_THREAD: &str = "the log can't be started";

static LEVELS: OnceLock<Levels> = OnceLock::new();

/// Starts logging to standard error, and the audit log, if configured, in separate threads.
pub(crate) fn begin(
    levels: &str,
    format: LogFormat,
    (audit, is_audit_required): (Option<&Path>, bool),
) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(parse_flag(levels)?);
    let audit = audit.map(audit_queue).transpose()?;
    let log = console::begin_queues().context(NO_THREAD)?;
    // A subscriber that an app has already installed is kept.
    if subscriber(filter, format, places(log, format, audit.as_ref())).try_init().is_ok() {
        let text = Mutex::new(levels.trim().into());
        let _ = LEVELS.set(Levels { audit, is_audit_required, format, text, filter: handle });
    }
    Ok(())
}

type LinePlace = (BoxMakeWriter, bool);

fn places(log: &LogQueue, format: LogFormat, audit: Option<&LineQueue>) -> [LinePlace; 2] {
    let has_colours = log.has_colours() && format == LogFormat::Human;
    let (queue, has_audit_colours) = audit.map_or((log.lines(), has_colours), |queue| (queue, false));
    let queue = queue.clone();
    let audit = BoxMakeWriter::new(move || LogWriter::new(queue.clone(), LinePriority::Kept));
    [(BoxMakeWriter::new(log.writer()), has_colours), (audit, has_audit_colours)]
}

/// Writes lines of these levels, and all audit lines regardless of levels, to the shared or to separate destinations.
fn subscriber(
    filter: reload::Layer<Targets, Registry>,
    format: LogFormat,
    [(log, has_colours), (audit, has_audit_colours)]: [LinePlace; 2],
) -> impl SubscriberInitExt {
    let layer = || fmt::layer().event_format(LineFormatter(format));
    let is_audit = |is_wanted| {
        let filter = filter_fn(move |line| (line.target() == AUDIT_TARGET) == is_wanted);
        filter.with_max_level_hint(if is_wanted { LevelFilter::INFO } else { LevelFilter::TRACE })
    };
    let of_audit = layer().with_ansi(has_audit_colours).with_writer(audit).with_filter(is_audit(true)).boxed();
    let others = layer().with_ansi(has_colours).with_writer(log).with_filter(filter.and(is_audit(false))).boxed();
    tracing_subscriber::registry().with(vec![of_audit, others])
}

/// Opens the destination of the audit log and starts its writer thread.
fn audit_queue(path: &Path) -> anyhow::Result<LineQueue> {
    let place = AuditFile::open(path).map_err(|error| audit_log_refused(path, &error))?;
    LineQueue::start("log-audit", place, AuditLosses(path.to_owned())).context(NO_THREAD)
}

pub(crate) fn audit_log_refused(path: &Path, cause: &std::io::Error) -> anyhow::Error {
    let path = path.display();
    anyhow!("--audit-log {path} can't be opened ({cause}): it must be a file that this process can append to")
}

fn audit_lines() -> Option<&'static LineQueue> {
    LEVELS.get()?.audit.as_ref()
}

/// Waits for remaining lines at process exit, at most a second in total.
pub(crate) fn flush() {
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    if let Some(audit) = audit_lines() {
        audit.flush(FLUSH_TIMEOUT);
    }
    console::flush(deadline);
}

/// Reopens the audit log file, which may have been renamed.
pub(crate) fn reopen() {
    audit_lines().into_iter().for_each(LineQueue::reopen);
}

/// Levels of the log, or `None` if the app owns the log.
pub(crate) fn levels() -> Option<&'static dyn LogLevels> {
    LEVELS.get().map(|levels| levels as &dyn LogLevels)
}

impl LogLevels for Levels {
    fn format_name(&self) -> &'static str {
        self.format.name()
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, levels: &str) -> Result<(), String> {
        let filter = parse(levels)?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(filter).map_err(|error| format!("can't be changed: {error}"))?;
        *text = levels.trim().into();
        Ok(())
    }

    fn requires_audit(&self) -> bool {
        self.is_audit_required
    }

    fn confirm_audit(&self, write: &mut dyn FnMut()) -> Result<(), String> {
        match &self.audit {
            Some(audit) => audit.confirm(AUDIT_TIMEOUT, write),
            None => {
                write();
                Ok(())
            }
        }
    }
}

/// Parses the levels of `--log`.
pub(crate) fn parse_flag(levels: &str) -> anyhow::Result<Targets> {
    parse(levels).map_err(|problem| anyhow!("--log {problem}"))
}

/// Parses levels. The error text continues a sentence that names their source.
fn parse(levels: &str) -> Result<Targets, String> {
    if levels.trim().len() > LEVELS_MAX_BYTES {
        return Err(format!("may have {LEVELS_MAX_BYTES} bytes at most"));
    }
    let given: Vec<_> = levels.split(',').map(str::trim).filter(|level| !level.is_empty()).collect();
    // `Targets` reads an empty text as the level `error`, also after a target.
    if given.is_empty() || given.iter().any(|level| level.ends_with('=')) {
        return Err("must name levels, such as info or trunkline_proxy=debug".into());
    }
    let levels = given.join(",").parse();
    levels
        .map_err(|error| format!("must be levels such as info or trunkline_proxy=debug, separated by commas: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn levels_that_cannot_be_read_are_refused() {
        for good in ["info", " debug ", "trunkline_proxy=debug,warn", "off", "trunkline_proxy[{hub}]=debug"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        assert_eq!(parse(" info, trunkline_proxy=debug,").unwrap(), parse("info,trunkline_proxy=debug").unwrap());
        for bad in [
            "",
            "  ",
            "trunkline_proxy=",
            "trunkline_proxy=,info",
            "trunkline_proxy=loud",
            "a=b=c",
            &"x".repeat(LEVELS_MAX_BYTES + 1),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    /// Output of an ordinary and an audit line at these levels.
    fn lines_at(levels: &str) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let place = || {
            let written = written.clone();
            (BoxMakeWriter::new(move || Written(written.clone())), false)
        };
        let (filter, _handle) = reload::Layer::new(parse(levels).unwrap());
        tracing::dispatcher::with_default(&subscriber(filter, LogFormat::Human, [place(), place()]).into(), || {
            tracing::info!(target: AUDIT_TARGET, act = "announce", "an act");
            tracing::info!("another line");
        });
        String::from_utf8(written.lock().unwrap().clone()).unwrap()
    }

    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_levels_turn_the_audit_log_off_or_write_it_twice() {
        for levels in ["off", "warn", "audit=off", "off,audit[{act}]=off", "off,audit[]=off", "warn,audit=trace"] {
            let lines = lines_at(levels);
            assert!(lines.lines().count() == 1 && lines.contains("an act"), "{levels}: {lines}");
        }
        assert_eq!(lines_at("info").lines().count(), 2);
    }

    #[test]
    fn an_audit_log_that_cannot_be_opened_is_named_with_its_flag() {
        let error = audit_queue(Path::new("/none/audit.log")).err().unwrap().to_string();
        assert!(error.starts_with("--audit-log "), "{error}");
    }
}
