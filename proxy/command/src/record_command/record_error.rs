//! Errors of `trunkline record`.

use std::io;
use std::path::PathBuf;

use trunkline_proxy::parts::LineStreamError;

use crate::admin_port::AdminPortError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Port(#[from] AdminPortError),
    #[error("--out {path} {problem}", path = path.display())]
    Taken { path: PathBuf, problem: &'static str },
    #[error("--out {path} can't be written: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the recording broke off: {0}. The file contains all earlier messages")]
    Broken(#[from] LineStreamError),
    #[error(
        "the node has ended the recording: the node stops, or this machine is too slow. The file contains all earlier \
         messages"
    )]
    Ended,
    #[error("cannot parse the node's output: {0}. Has the node another version?")]
    Line(#[from] serde_json::Error),
    #[error("the node's output does not begin like a recording. Has the node another version?")]
    Header,
    #[error("cannot listen for Ctrl-C: {0}")]
    Signals(io::Error),
}
