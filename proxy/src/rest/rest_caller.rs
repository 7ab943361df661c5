//! Caller of the data plane, as its request and its token show it.

use trunkline_protocol::key::AccessKey;

/// Caller of the data plane.
pub(super) struct RestCaller {
    /// Key that has signed its token.
    pub(super) signer: AccessKey,
    /// Origin at which it reaches this node, such as `https://node.example`.
    pub(super) origin: String,
}
