//! Seam to the records of groups and users, with the messages to each in order.

use std::fmt;
use std::pin::Pin;

use trunkline_protocol::service::{RecordReply, RecordRequest};

/// Sender of a request for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestOrigin {
    /// This node: the request goes to the recorder of the set.
    Here,
    /// Another node, which takes this one for the recorder.
    OtherNode,
}

/// Records of all hubs of the fleet.
///
/// The records are in a layer above, which implements it.
pub(crate) trait Recorder: fmt::Debug + Send + Sync {
    /// Carries out a request, given the fleet-wide name of its hub. Requests for one hub are carried out in the order
    /// of the calls, whenever their futures are polled.
    fn request_record(
        &self,
        hub: &str,
        request: RecordRequest,
        origin: RequestOrigin,
    ) -> Pin<Box<dyn Future<Output = RecordReply> + Send>>;
}
