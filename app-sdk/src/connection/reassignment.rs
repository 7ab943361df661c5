//! Reassignment of one connection to another app server, as its inbox sees it. A pure value.
//!
//! ```text
//!  None ──proxy asks──► Boundary ──something of the client is waited for: READ ON──► Reading
//!                         │  ▲                                                          │ nothing is any more: END INPUT
//!                         │  └───────────────────proxy asks again──────────── Stopping ◄┘
//!                         └─ no call runs, and nothing is waited for: it is given away
//! ```

use trunkline_protocol::service::FlowOperation;

/// Reassignment of a connection, if there is to be one.
#[derive(Debug, Default)]
pub(crate) struct Reassignment {
    stage: ReassignmentStage,
    /// This app server stops, and another one has the connection by now.
    is_elsewhere: bool,
    /// The connection goes on elsewhere, or over another link.
    goes_on: bool,
    /// The hook `on_leaving` runs.
    is_leaving: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ReassignmentStage {
    #[default]
    None,
    /// Its proxy does not read it: all that it has sent is here.
    Boundary,
    /// Its proxy reads it on.
    Reading,
    /// Its proxy was asked to stop reading it.
    Stopping,
}

impl Reassignment {
    /// Begins it, or has it come to its boundary again: the proxy does not read the client any more.
    pub(super) fn begin(&mut self) {
        self.stage = ReassignmentStage::Boundary;
    }

    /// Ends it, because the connection closes.
    pub(super) fn end(&mut self) {
        self.stage = ReassignmentStage::None;
    }

    /// Ends it, because the connection goes on elsewhere, or over another link.
    pub(super) fn end_elsewhere(&mut self) {
        (self.stage, self.goes_on) = (ReassignmentStage::None, true);
    }

    /// Whether the connection is about to be given to another app server.
    pub(crate) fn has_begun(&self) -> bool {
        self.stage != ReassignmentStage::None
    }

    /// Whether all that the client has sent is here.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.stage == ReassignmentStage::Boundary
    }

    /// Notes that `on_leaving` begins. Returns `false` if it runs already.
    pub(crate) fn begin_leaving(&mut self) -> bool {
        !std::mem::replace(&mut self.is_leaving, true)
    }

    /// Notes that `on_leaving` has returned, and the connection stays for now.
    pub(crate) fn end_leaving(&mut self) {
        self.is_leaving = false;
    }

    /// Whether the hook `on_leaving` runs.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Notes that another app server gets the connection.
    pub(crate) fn set_elsewhere(&mut self) {
        self.is_elsewhere = true;
    }

    /// Whether another app server has the connection, or is about to get it.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// Whether the connection goes on at another app server, or over another link.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// The next request to the proxy: to read the client on while something of it is waited for, and to stop then.
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
