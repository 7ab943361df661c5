//! Reassignment of one connection to another app server, from the view of its inbox. Pure logic.
//!
//! ```text
//!  None ──proxy asks──► Boundary ──result or upload pending: READ ON─────────────► Reading
//!                         │  ▲                                                          │ nothing pending: END INPUT
//!                         │  └───────────────────proxy asks again──────────── Stopping ◄┘
//!                         └─ no call running, nothing pending: handed over
//! ```

use trunkline_protocol::service::FlowOperation;

#[derive(Debug, Default)]
pub(crate) struct Reassignment {
    stage: ReassignmentStage,
    /// This app server is stopping, and another one has the connection.
    is_elsewhere: bool,
    goes_on: bool,
    is_leaving: bool,
}

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
    pub(super) fn begin(&mut self) {
        self.stage = ReassignmentStage::Boundary;
    }

    pub(super) fn end(&mut self) {
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
