#![forbid(unsafe_code)]
#![doc = include_str!("../README.md")]
//!
//! Modules, lowest first:
//!
//! | module | contents |
//! |---|---|
//! | `line_queue` | bounded queue of lines in front of a writer thread |
//! | `log_limit` | rate limit of log lines that clients cause |
//! | `log_queue` | log of the process: queue, panics, counters; characters that a terminal obeys |
//! | `open_files` | limit of open files |

mod line_queue;
mod log_limit;
mod log_queue;
mod open_files;

pub use line_queue::{LineLosses, LinePriority, LineQueue, LineSink};
pub use log_limit::{LinePermit, LogLimit};
pub use log_queue::{
    LogQueue, LogStream, LogWriter, audit_lines_lost, count_lost_audit_line, is_steering, log_lines_dropped, panic_text,
};
pub use open_files::{OpenFiles, log_open_files, open_files, restore_open_files};
