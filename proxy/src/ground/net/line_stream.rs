//! Stream of lines sent by a node while the response is read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// Maximum line: an escaped message of one megabyte.
const LINE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Maximum silence of a node, which sends an empty line each second.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);

/// Lines of one response.
#[derive(Debug)]
pub struct LineStream {
    body: Incoming,
    read: BytesMut,
    /// Bytes already searched for a line end.
    searched: usize,
}

/// Error of an interrupted stream.
#[derive(Debug, thiserror::Error)]
pub enum LineStreamError {
    /// Nothing received for this time.
    #[error("no data within {} s", .0.as_secs())]
    Silent(Duration),
    /// A line exceeds the limit.
    #[error("a line is longer than {LINE_MAX_BYTES} bytes")]
    TooLong,
    /// The connection closed early.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

impl LineStream {
    /// Reads the lines of this body.
    pub fn new(body: Incoming) -> Self {
        Self { body, read: BytesMut::new(), searched: 0 }
    }

    /// Returns the next line without its terminator; `None` at the end of the stream. Cancel-safe.
    ///
    /// # Errors
    /// If the stream breaks off or is silent for too long.
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
