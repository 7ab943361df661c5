//! Stream of lines that a node sends for as long as somebody reads it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// Largest line: a message of a megabyte, escaped.
const LINE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Time without anything after which the node is given up. It sends an empty line each second.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);

/// Lines of one answer.
#[derive(Debug)]
pub struct LineStream {
    body: Incoming,
    read: BytesMut,
    /// Bytes in which no line ends.
    searched: usize,
}

/// Error for a stream that breaks off.
#[derive(Debug, thiserror::Error)]
pub enum LineStreamError {
    /// Nothing came for this time.
    #[error("nothing within {} s", .0.as_secs())]
    Silent(Duration),
    /// A line exceeds the limit.
    #[error("a line is longer than {LINE_MAX_BYTES} bytes")]
    TooLong,
    /// The connection has ended early.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

impl LineStream {
    /// Reads the lines of this body.
    pub fn new(body: Incoming) -> Self {
        Self { body, read: BytesMut::new(), searched: 0 }
    }

    /// Returns the next line without its end, `None` at the end of the stream. Cancelled, nothing is lost.
    ///
    /// # Errors
    /// When the stream breaks off, or nothing comes for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LineStreamError> {
        loop {
            let unsearched = self.read.get(self.searched..).unwrap_or_default();
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let mut line = self.read.split_to(self.searched + at + 1);
                self.searched = 0;
                line.truncate(line.len() - 1);
                return Ok(Some(line.freeze()));
            }
            self.searched = self.read.len();
            if self.read.len() > LINE_MAX_BYTES {
                return Err(LineStreamError::TooLong);
            }
            let frame = timeout(SILENCE_TIMEOUT, self.body.frame()).await;
            match frame.map_err(|_| LineStreamError::Silent(SILENCE_TIMEOUT))? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
