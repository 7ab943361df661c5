//! The log of a node: lines for people or JSON, each with the node's name, and levels that can be changed while it runs.
//!
//! A line says where it belongs by its fields: `hub`, and `connection`, the id of a client connection.

mod line;

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use line::Lines;

/// Longest text of levels.
pub(crate) const LEVELS_MAX_BYTES: usize = 1024;

/// What the lines of a log look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Human,
    /// One JSON object in each line.
    Json,
}

impl LogFormat {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

/// Levels that can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LevelsError {
    #[error("must say which levels, such as info or trunkline_proxy=debug")]
    Empty,
    /// It is too long.
    #[error("may have {LEVELS_MAX_BYTES} bytes at most")]
    TooLong,
    /// Something in it is no level.
    #[error("must be levels such as info or trunkline_proxy=debug, separated by commas: {0}")]
    Invalid(#[from] ParseError),
    /// The log has ended.
    #[error("can't be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// What is logged; one for the process, because the log is.
#[derive(Debug)]
pub(crate) struct Levels {
    format: LogFormat,
    text: Mutex<String>,
    filter: reload::Handle<EnvFilter, Registry>,
}

static LEVELS: OnceLock<Levels> = OnceLock::new();

static NODE: OnceLock<String> = OnceLock::new();

/// Begins to log to standard error.
///
/// # Errors
/// When the levels can't be read.
pub(crate) fn begin(levels: &str, format: LogFormat) -> Result<(), LevelsError> {
    let (filter, handle) = reload::Layer::new(parse(levels)?);
    let lines = fmt::layer().event_format(Lines(format)).with_writer(std::io::stderr);
    let is_terminal = std::io::stderr().is_terminal() && format == LogFormat::Human;
    // A log that somebody else has begun stays as it is.
    if tracing_subscriber::registry().with(filter).with(lines.with_ansi(is_terminal)).try_init().is_ok() {
        let _ = LEVELS.set(Levels { format, text: Mutex::new(levels.trim().into()), filter: handle });
    }
    Ok(())
}

/// From now on each line names this node.
pub(crate) fn name_node(name: &str) {
    NODE.get_or_init(|| name.into());
}

/// What is logged; `None` where the log is the app's.
#[must_use]
pub(crate) fn levels() -> Option<&'static Levels> {
    LEVELS.get()
}

impl Levels {
    /// What lines look like.
    #[must_use]
    pub(crate) fn format(&self) -> LogFormat {
        self.format
    }

    #[must_use]
    pub(crate) fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Other levels, from now on.
    ///
    /// # Errors
    /// When they can't be read; then all stays as it was.
    pub(crate) fn set(&self, levels: &str) -> Result<(), LevelsError> {
        let filter = parse(levels)?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(filter)?;
        *text = levels.trim().into();
        Ok(())
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
    fn levels_that_make_no_sense_are_refused() {
        for good in ["info", " debug ", "trunkline_proxy=debug,warn", "off"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "  ", "trunkline_proxy=loud", "a=b=c", &"x".repeat(LEVELS_MAX_BYTES + 1)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
