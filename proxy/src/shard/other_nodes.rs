//! Other nodes, as far as shards need them: what enters at this node and is another one's.

use std::fmt;

use trunkline_protocol::service::ServiceMessage;

/// Way to the other nodes of the fleet.
pub(crate) trait OtherNodes: fmt::Debug + Send + Sync {
    /// Passes a client's result on to the node that asked for it, or where the app server that asked is linked.
    fn pass_result(&self, hub: &str, caller: &str, answer: &ServiceMessage);
}

/// No other nodes: a result that nobody here waits for is nobody's.
#[derive(Debug)]
pub(super) struct NoOtherNodes;

impl OtherNodes for NoOtherNodes {
    fn pass_result(&self, _hub: &str, _caller: &str, _answer: &ServiceMessage) {}
}
