//! How a connection leaves this app server: its close (cause, and error if any), or its reassignment to another one.

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{CloseConnection, FlowOperation, OpenConnection};

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

/// Reassignment of one connection to another app server, from the view of its inbox. Pure logic.
#[derive(Debug, Default)]
pub(crate) struct Reassignment {
    stage: ReassignmentStage,
    /// This app server is stopping, and another one has the connection.
    is_elsewhere: bool,
    goes_on: bool,
    is_leaving: bool,
}

/// ```text
///  None ──proxy asks──► Boundary ──result or upload pending: READ ON─────────────► Reading
///                         │  ▲                                                          │ nothing pending: END INPUT
///                         │  └───────────────────proxy asks again──────────── Stopping ◄┘
///                         └─ no call running, nothing pending: handed over
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ReassignmentStage {
    #[default]
    None,
    /// Its proxy does not read from the client; all input has arrived.
    Boundary,
    Reading,
    /// Its proxy was asked to stop reading.
    Stopping,
}

impl Reassignment {
    /// Begins, or returns to the boundary: the proxy has stopped reading from the client.
    pub(super) fn begin_reassignment(&mut self) {
        self.stage = ReassignmentStage::Boundary;
    }

    pub(super) fn end_reassignment(&mut self) {
        self.stage = ReassignmentStage::None;
    }

    /// Ends, because the connection continues elsewhere or over another link.
    pub(super) fn end_elsewhere(&mut self) {
        (self.stage, self.goes_on) = (ReassignmentStage::None, true);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.stage != ReassignmentStage::None
    }

    pub(super) fn is_at_boundary(&self) -> bool {
        self.stage == ReassignmentStage::Boundary
    }

    /// Records that `on_leaving` starts. Returns `false` if it is already running.
    pub(crate) fn begin_leaving(&mut self) -> bool {
        !std::mem::replace(&mut self.is_leaving, true)
    }

    /// Records that `on_leaving` has returned, but the connection stays for now.
    pub(crate) fn end_leaving(&mut self) {
        self.is_leaving = false;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    pub(crate) fn set_elsewhere(&mut self) {
        self.is_elsewhere = true;
    }

    /// Whether another app server has the connection or is about to get it.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// Whether the connection continues on another app server or over another link.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Returns the next request to the proxy: to read while something from the client is pending, then to stop.
    pub(super) fn poll(&mut self, is_waited_for: bool) -> Option<FlowOperation> {
        let (next, operation) = match (self.stage, is_waited_for) {
            (ReassignmentStage::Boundary, true) => (ReassignmentStage::Reading, FlowOperation::ReadOn),
            (ReassignmentStage::Reading, false) => (ReassignmentStage::Stopping, FlowOperation::EndInput),
            _ => return None,
        };
        self.stage = next;
        Some(operation)
    }
}
