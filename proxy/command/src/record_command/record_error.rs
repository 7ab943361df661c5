//! Errors of `trunkline record`.

use std::io;
use std::path::PathBuf;

use trunkline_proxy::parts::LineStreamError;

use crate::admin_port::AdminPortError;

/// Error for a recording that can't be started, or ends unexpectedly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Port(#[from] AdminPortError),
    #[error("--out {path} {problem}", path = path.display())]
    Taken { path: PathBuf, problem: &'static str },
    #[error("--out {path} can't be written: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the recording breaks off: {0}. What came before is in the file")]
    Broken(#[from] LineStreamError),
    #[error("the node has ended the recording: it stops, or this machine is too slow. What came before is in the file")]
    Ended,
    #[error("what the node sends can't be read: {0}. Is it of another version?")]
    Line(#[from] serde_json::Error),
    #[error("what the node sends does not begin as a recording does. Is it of another version?")]
    Header,
    #[error("Ctrl-C can't be heard: {0}")]
    Signals(io::Error),
}
