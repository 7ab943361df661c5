//! Close of a connection: its cause, and the error if there was one.

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{CloseConnection, OpenConnection};

/// Why a connection was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionClose {
    pub(crate) cause: Cause,
    /// Error for the app and the log; `None` for a normal close.
    pub(crate) error: Option<ByteString>,
}

impl ConnectionClose {
    /// A close without an error.
    pub(crate) fn new(cause: Cause) -> Self {
        Self { cause, error: None }
    }

    /// A close because of an error.
    pub(crate) fn with_error(cause: Cause, error: impl Into<ByteString>) -> Self {
        Self { cause, error: Some(error.into()) }
    }

    /// Reads the end that an open frame tells of, if it does: its connection was another app server's.
    pub(crate) fn of_ended(open: &OpenConnection) -> Option<Self> {
        let origin = open.origin();
        Some(Self { cause: origin.ended?, error: origin.ended_error.cloned() })
    }

    /// Reads the close that a proxy reports. Proxies that name no cause tell only whether there was an error.
    pub(crate) fn from_frame(close: &CloseConnection) -> Self {
        let error = close.error.clone().filter(|error| !error.is_empty());
        let plain = if error.is_some() { Cause::Unnamed } else { Cause::ClientClosed };
        Self { cause: close.reason().cause.unwrap_or(plain), error }
    }
}
