//! Caller of the data plane, as its request and its token show it.

use crate::auth::TokenSigner;

/// Caller of the data plane.
pub(super) struct RestCaller {
    /// Signer of its token.
    pub(super) signer: TokenSigner,
    /// Origin at which it reaches this node, such as `https://node.example`.
    pub(super) origin: String,
}
