//! Caller of the data plane, from its request and token.

use crate::auth::TokenSigner;

/// Caller of the data plane.
pub(super) struct RestCaller {
    /// Signer of the token.
    pub(super) signer: TokenSigner,
    /// Origin used to reach this node, such as `https://node.example`.
    pub(super) origin: String,
}
