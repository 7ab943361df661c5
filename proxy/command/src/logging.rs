//! Log of a node: lines for people or JSON, each with the node's name, and levels that can be changed while it runs.
//!
//! The fields `hub` and `connection` (the id of a client connection) tell what a line belongs to.

mod console;
mod log_format;
mod log_line;
#[cfg(unix)]
mod syslog_socket;

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
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
    #[error(
        "--audit-log {path} can't be opened ({source}): it must be a file that this process may append to, or the datagram socket of a syslog that runs"
    )]
    AuditLog { path: PathBuf, source: std::io::Error },
}

/// Permissions of a new audit log.
#[cfg(unix)]
const AUDIT_LOG_MODE: u32 = 0o600;

/// Place of the audit log; a call writes a line.
type AuditWriter = Box<dyn Write + Send>;

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

/// Starts logging to standard error, and the audit log to its file or to syslog if it has one.
///
/// # Errors
/// When the levels can't be read, or the file or socket can't be opened.
pub(crate) fn begin(levels: &str, format: LogFormat, audit: Option<&Path>) -> Result<(), LogError> {
    let (filter, handle) = reload::Layer::new(parse(levels).map_err(LogError::Levels)?);
    let audit = audit.map(open_audit_log).transpose()?;
    let is_terminal = std::io::stderr().is_terminal() && format == LogFormat::Human;
    // A subscriber that an app has installed stays.
    if subscriber(filter, format, (std::io::stderr, is_terminal), audit).try_init().is_ok() {
        let text = Mutex::new(levels.trim().into());
        let _ = LEVELS.set(Levels { format, text, filter: handle });
    }
    Ok(())
}

/// Lines of these levels, and all of the audit log, whatever the levels: beside the others, or in a place of their own.
fn subscriber<W>(
    filter: reload::Layer<EnvFilter, Registry>,
    format: LogFormat,
    (writer, is_terminal): (W, bool),
    audit: Option<AuditWriter>,
) -> impl SubscriberInitExt
where
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let layer = || fmt::layer().event_format(LineFormatter(format)).with_ansi(is_terminal);
    let is_audit = |is_wanted| {
        let filter = filter_fn(move |line| (line.target() == AUDIT_TARGET) == is_wanted);
        filter.with_max_level_hint(if is_wanted { LevelFilter::INFO } else { LevelFilter::TRACE })
    };
    let of_audit = match audit {
        Some(place) => layer().with_ansi(false).with_writer(Mutex::new(place)).with_filter(is_audit(true)).boxed(),
        None => layer().with_writer(writer.clone()).with_filter(is_audit(true)).boxed(),
    };
    let others = layer().with_writer(writer).with_filter(filter.and(is_audit(false))).boxed();
    tracing_subscriber::registry().with(vec![of_audit, others])
}

/// Opens the place of the audit log: the socket of a syslog, or a file, to which lines are appended. Only its owner can
/// read a new file.
fn open_audit_log(path: &Path) -> Result<AuditWriter, LogError> {
    let refused = |source| LogError::AuditLog { path: path.to_owned(), source };
    #[cfg(unix)]
    if syslog_socket::is_socket(path) {
        let socket = syslog_socket::SyslogSocket::open(path, std::io::stderr()).map_err(refused)?;
        return Ok(Box::new(socket));
    }
    let mut options = File::options();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, AUDIT_LOG_MODE);
    Ok(Box::new(options.open(path).map_err(refused)?))
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

/// Reads levels of log lines.
pub(crate) fn parse(levels: &str) -> Result<EnvFilter, LevelsError> {
    match levels.trim() {
        "" => Err(LevelsError::Empty),
        long if long.len() > LEVELS_MAX_BYTES => Err(LevelsError::TooLong),
        levels => Ok(EnvFilter::builder().parse(levels)?),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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

    /// Lines that are left of two, one of them of the audit log.
    fn lines_at(levels: &str) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = {
            let written = written.clone();
            move || Written(written.clone())
        };
        let (filter, _handle) = reload::Layer::new(parse(levels).unwrap());
        tracing::dispatcher::with_default(&subscriber(filter, LogFormat::Human, (writer, false), None).into(), || {
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

    #[cfg(unix)]
    #[test]
    fn a_new_audit_log_is_its_owners_alone_and_lines_are_appended() {
        use std::os::unix::fs::PermissionsExt;

        let path = std::env::temp_dir().join(format!("trunkline-audit-{}", std::process::id()));
        for line in ["one\n", "two\n"] {
            open_audit_log(&path).unwrap().write_all(line.as_bytes()).unwrap();
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode & 0o777), ("one\ntwo\n", 0o600));
        std::fs::remove_file(&path).unwrap();
        let error = open_audit_log(&path.join("none")).err().unwrap().to_string();
        assert!(error.starts_with("--audit-log "), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn an_act_is_a_datagram_where_the_audit_log_is_a_syslog() {
        let path = std::env::temp_dir().join(format!("trunkline-audit-syslog-{}", std::process::id()));
        let syslog = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        syslog.set_nonblocking(true).unwrap();
        let audit = open_audit_log(&path).unwrap();
        let (filter, _handle) = reload::Layer::new(parse("off").unwrap());
        let subscriber = subscriber(filter, LogFormat::Json, (std::io::sink, false), Some(audit));
        tracing::dispatcher::with_default(&subscriber.into(), || {
            tracing::info!(target: AUDIT_TARGET, act = "announce", "an act");
            tracing::info!(target: AUDIT_TARGET, act = "record", "another act");
        });
        for act in ["announce", "record"] {
            let mut buffer = [0; 1024];
            let length = syslog.recv(&mut buffer).unwrap();
            let datagram = std::str::from_utf8(&buffer[..length]).unwrap();
            let line = datagram.strip_prefix(&format!("<86>trunkline[{}]: ", std::process::id())).unwrap();
            assert!(line.starts_with('{') && line.ends_with('}') && line.contains(act), "{datagram}");
        }
        assert!(syslog.recv(&mut [0; 16]).is_err(), "no more than two");
        std::fs::remove_file(&path).unwrap();
    }
}
