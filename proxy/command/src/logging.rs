//! Log of a node: lines for people or JSON, each with the node's name, and levels that can be changed while it runs.
//!
//! The fields `hub` and `connection` (the id of a client connection) tell what a line belongs to.

mod console;
mod log_format;
mod log_line;

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};
use trunkline_proxy::parts::{LEVELS_MAX_BYTES, LogLevels};

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

/// Levels of the log; one value for the process, because it has one log.
#[derive(Debug)]
pub(crate) struct Levels {
    format: LogFormat,
    text: Mutex<String>,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Target of the log lines that the command adds to those of its node: `--log trunkline_proxy=debug` takes both.
pub(crate) const LOG_TARGET: &str = "trunkline_proxy::cli";

static LEVELS: OnceLock<Levels> = OnceLock::new();

/// Starts logging to standard error.
///
/// # Errors
/// When the levels can't be read.
pub(crate) fn begin(levels: &str, format: LogFormat) -> Result<(), LevelsError> {
    let (filter, handle) = reload::Layer::new(parse(levels)?);
    let lines = fmt::layer().event_format(LineFormatter(format)).with_writer(std::io::stderr);
    let is_terminal = std::io::stderr().is_terminal() && format == LogFormat::Human;
    // A subscriber that an app has installed stays.
    if tracing_subscriber::registry().with(filter).with(lines.with_ansi(is_terminal)).try_init().is_ok() {
        let _ = LEVELS.set(Levels { format, text: Mutex::new(levels.trim().into()), filter: handle });
    }
    Ok(())
}

/// Returns the levels of the log, or `None` if the log is the app's.
#[must_use]
pub(crate) fn levels() -> Option<&'static dyn LogLevels> {
    LEVELS.get().map(|levels| levels as &dyn LogLevels)
}

impl Levels {
    fn change(&self, levels: &str) -> Result<(), LevelsError> {
        let filter = parse(levels)?;
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

fn parse(levels: &str) -> Result<EnvFilter, LevelsError> {
    match levels.trim() {
        "" => Err(LevelsError::Empty),
        long if long.len() > LEVELS_MAX_BYTES => Err(LevelsError::TooLong),
        levels => Ok(EnvFilter::builder().parse(levels)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_cannot_be_read_are_refused() {
        for good in ["info", " debug ", "trunkline_proxy=debug,warn", "off"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "  ", "trunkline_proxy=loud", "a=b=c", &"x".repeat(LEVELS_MAX_BYTES + 1)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
