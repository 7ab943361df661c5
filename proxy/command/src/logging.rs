//! Log of a node: lines for people or JSON, each with the node's name, and levels that can be changed while it runs.
//!
//! The fields `hub` and `connection` (the id of a client connection) tell what a line belongs to.

mod console;
mod log_format;
mod log_line;

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};
use trunkline_proxy::parts::{AUDIT_TARGET, LEVELS_MAX_BYTES, LogLevels};

pub(crate) use console::{formatted, set_format};
pub(crate) use log_format::LogFormat;
use log_line::LineFormatter;
pub(crate) use log_line::name_node;

/// Error for levels that can't be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LevelsError {
    #[error("must say which levels, such as info or trunkline_proxy=debug")]
    Empty,
    #[error("may have {LEVELS_MAX_BYTES} bytes at most")]
    TooLong,
    #[error("must be levels such as info or trunkline_proxy=debug, separated by commas: {0}")]
    Invalid(#[from] ParseError),
    #[error("can't be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// Error for a log that can't begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("--log {0}")]
    Levels(LevelsError),
    #[error("--audit-log {path} can't be opened ({source}): it must be a file that this process may append to")]
    AuditLog { path: PathBuf, source: std::io::Error },
}

/// Permissions of a new audit log.
#[cfg(unix)]
const AUDIT_LOG_MODE: u32 = 0o600;

/// Levels of the log; one value for the process, because it has one log.
#[derive(Debug)]
pub(crate) struct Levels {
    format: LogFormat,
    text: Mutex<String>,
    /// Lines of the audit log go to a file of their own.
    has_audit_file: bool,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Target of the log lines that the command adds to those of its node: `--log trunkline_proxy=debug` takes both.
pub(crate) const LOG_TARGET: &str = "trunkline_proxy::cli";

static LEVELS: OnceLock<Levels> = OnceLock::new();

/// Starts logging to standard error, and the audit log to its file if it has one.
///
/// # Errors
/// When the levels can't be read, or the file can't be opened.
pub(crate) fn begin(levels: &str, format: LogFormat, audit: Option<&Path>) -> Result<(), LogError> {
    let in_file = audit.is_some();
    let (filter, handle) = reload::Layer::new(parse(levels, in_file).map_err(LogError::Levels)?);
    let lines = fmt::layer().event_format(LineFormatter(format)).with_writer(std::io::stderr);
    let is_terminal = std::io::stderr().is_terminal() && format == LogFormat::Human;
    let audited = audit.map(open_audit_log).transpose()?.map(|file| {
        let lines = fmt::layer().event_format(LineFormatter(format)).with_ansi(false).with_writer(Mutex::new(file));
        lines.with_filter(filter_fn(|line| line.target() == AUDIT_TARGET))
    });
    let lines = lines.with_ansi(is_terminal).with_filter(filter);
    // A subscriber that an app has installed stays.
    if tracing_subscriber::registry().with(lines).with(audited).try_init().is_ok() {
        let text = Mutex::new(levels.trim().into());
        let _ = LEVELS.set(Levels { format, text, has_audit_file: in_file, filter: handle });
    }
    Ok(())
}

/// Opens the file of the audit log, to which lines are appended; only its owner can read a new one.
fn open_audit_log(path: &Path) -> Result<File, LogError> {
    let mut options = File::options();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, AUDIT_LOG_MODE);
    options.open(path).map_err(|source| LogError::AuditLog { path: path.to_owned(), source })
}

/// Returns the levels of the log, or `None` if the log is the app's.
#[must_use]
pub(crate) fn levels() -> Option<&'static dyn LogLevels> {
    LEVELS.get().map(|levels| levels as &dyn LogLevels)
}

impl Levels {
    fn change(&self, levels: &str) -> Result<(), LevelsError> {
        let filter = parse(levels, self.has_audit_file)?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(filter)?;
        *text = levels.trim().into();
        Ok(())
    }
}

impl LogLevels for Levels {
    fn format_name(&self) -> &'static str {
        self.format.name()
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, levels: &str) -> Result<(), String> {
        self.change(levels).map_err(|error| error.to_string())
    }
}

/// Reads levels. None of them turns the audit log off: it is here unless it has a file of its own.
fn parse(levels: &str, has_audit_file: bool) -> Result<EnvFilter, LevelsError> {
    let of_audit = if has_audit_file { "off" } else { "info" };
    match levels.trim() {
        "" => Err(LevelsError::Empty),
        long if long.len() > LEVELS_MAX_BYTES => Err(LevelsError::TooLong),
        levels => Ok(EnvFilter::builder().parse(levels)?.add_directive(format!("{AUDIT_TARGET}={of_audit}").parse()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_cannot_be_read_are_refused() {
        for good in ["info", " debug ", "trunkline_proxy=debug,warn", "off"] {
            assert!(parse(good, false).is_ok(), "{good}");
        }
        for bad in ["", "  ", "trunkline_proxy=loud", "a=b=c", &"x".repeat(LEVELS_MAX_BYTES + 1)] {
            assert!(parse(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_levels_turn_the_audit_log_off() {
        for levels in ["off", "warn", "audit=off", "info,audit=error"] {
            assert!(parse(levels, false).unwrap().to_string().contains("audit=info"), "{levels}");
            assert!(
                parse(levels, true).unwrap().to_string().contains("audit=off"),
                "its lines are in a file: {levels}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_new_audit_log_is_its_owners_alone_and_lines_are_appended() {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;

        let path = std::env::temp_dir().join(format!("trunkline-audit-{}", std::process::id()));
        for line in ["one\n", "two\n"] {
            open_audit_log(&path).unwrap().write_all(line.as_bytes()).unwrap();
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode & 0o777), ("one\ntwo\n", 0o600));
        std::fs::remove_file(&path).unwrap();
        let error = open_audit_log(&path.join("none")).unwrap_err().to_string();
        assert!(error.starts_with("--audit-log "), "{error}");
    }
}
