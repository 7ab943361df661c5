//! Close of a connection: its cause, and the error if there was one.

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{CloseConnection, OpenConnection};
use trunkline_protocol::wire::{CAUSE_HEADER, ENDED_ERROR_HEADER, ENDED_HEADER, IF_IDLE_HEADER, MIGRATE_TO_HEADER};

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
        let value = |wanted: &str| {
            let (_, values) = open.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            values.first()
        };
        let cause = Cause::from_label(value(ENDED_HEADER)?).unwrap_or(Cause::Unnamed);
        Some(Self { cause, error: value(ENDED_ERROR_HEADER).cloned() })
    }

    /// Reads where a connection goes on, of which a proxy says that it leaves this app server: an empty name asks to hand
    /// it over.
    pub(crate) fn next_home(close: &CloseConnection) -> Option<&str> {
        let (_, values) = close.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(MIGRATE_TO_HEADER))?;
        Some(values.first().map_or("", |instance| instance))
    }

    /// Whether a proxy asks for a connection only if that is idle.
    pub(crate) fn is_if_idle(close: &CloseConnection) -> bool {
        close.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(IF_IDLE_HEADER))
    }

    /// Reads the close that a proxy reports. Proxies that name no cause tell only whether there was an error.
    pub(crate) fn from_frame(close: &CloseConnection) -> Self {
        let error = close.error.clone().filter(|error| !error.is_empty());
        let named = close.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CAUSE_HEADER));
        let named = named.and_then(|(_, values)| Cause::from_label(values.first()?));
        let plain = if error.is_some() { Cause::Unnamed } else { Cause::ClientClosed };
        Self { cause: named.unwrap_or(plain), error }
    }
}
