//! Caller of the data plane, from its request and token.

use crate::ground::auth::TokenSigner;

pub(super) struct RestCaller {
    pub(super) signer: TokenSigner,
    /// Origin used to reach this node, such as `https://node.example`.
    pub(super) origin: String,
}
