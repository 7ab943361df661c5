//! Interest of this node in messages of other nodes, as the engine reports it: which sets have members here.
//!
//! Anything that reveals the presence of a set's first member (an ack, a handshake response) waits until the other
//! nodes have confirmed the interest. The confirmations are in a layer above, which implements [`SetInterest`].

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use trunkline_protocol::fleet::Wanted;

use crate::engine::upstream::HubIndex;

/// Sets that count as having a member until this is dropped.
pub(crate) trait InterestHold: fmt::Debug + Send {}

/// Notified of sets, not of members, so never for a message.
pub(crate) trait SetInterest: fmt::Debug + Send + Sync {
    /// Records the first member of a set on a shard.
    fn enter(&self, hub: HubIndex, set: Wanted<'_>);

    /// Records that a set lost its last member on a shard.
    fn leave(&self, hub: HubIndex, set: Wanted<'_>);

    /// Makes sets count as having a member in advance. The future ends when the other nodes have confirmed them.
    fn announce(
        self: Arc<Self>,
        hub: HubIndex,
        sets: &[Wanted<'_>],
    ) -> Pin<Box<dyn Future<Output = Box<dyn InterestHold>> + Send>>;

    /// Runs an action when the other nodes have confirmed that a set has members here: immediately, unless its first
    /// member is new.
    fn when_confirmed(&self, hub: HubIndex, set: Wanted<'_>, act: Box<dyn FnOnce() + Send>);

    /// Whether any set of a hub has members here, or the end of one is not yet reported.
    fn has_sets(&self, hub: HubIndex) -> bool;
}
