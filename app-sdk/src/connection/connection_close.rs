//! Close of a connection: cause, and error if any.

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{CloseConnection, OpenConnection};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionClose {
    pub(crate) cause: Cause,
    /// Error for the app and the log; `None` for a normal close.
    pub(crate) error: Option<ByteString>,
}

impl ConnectionClose {
    pub(crate) fn new(cause: Cause) -> Self {
        Self { cause, error: None }
    }

    pub(crate) fn with_error(cause: Cause, error: impl Into<ByteString>) -> Self {
        Self { cause, error: Some(error.into()) }
    }

    /// Reads the close of another app server's connection from an open frame, if it reports one.
    pub(crate) fn of_ended(open: &OpenConnection) -> Option<Self> {
        let origin = open.origin();
        Some(Self { cause: origin.ended?, error: origin.ended_error.cloned() })
    }

    /// Reads the close that a proxy reports. Services send no cause, only an optional error.
    pub(crate) fn from_frame(close: &CloseConnection) -> Self {
        let error = close.error.clone().filter(|error| !error.is_empty());
        let plain = if error.is_some() { Cause::Unnamed } else { Cause::ClientClosed };
        Self { cause: close.reason().cause.unwrap_or(plain), error }
    }
}
