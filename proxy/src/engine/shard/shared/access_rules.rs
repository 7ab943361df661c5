//! Access to hubs, as the engine queries it: owners of hubs, and revoked log-ins.
//!
//! Tokens, keys and revocations are in a layer above, which implements [`AccessRules`].

use std::fmt;

use bytestring::ByteString;

use crate::ground::auth::Signer;

/// Position in the order of revocations of a node. A request takes a mark before its token is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RevocationMark(pub(crate) u64);

/// Reason to refuse the claims of a newer authentication for an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefreshRefused {
    #[error("the claims have {bytes} bytes, at most {max} are allowed: see --jwt-max-bytes")]
    TooLarge { bytes: usize, max: usize },
    #[error("the claims are of another user than the connection: only the same user can refresh it")]
    OtherUser,
    #[error("the log-in was issued before the claims in force: log in again for a newer one")]
    Older,
    #[error("the log-in was revoked: log in again")]
    Revoked,
}

/// Queried when clients connect, move or refresh, and for the share of a caller; never for a delivery.
pub(crate) trait AccessRules: fmt::Debug + Send + Sync {
    /// Whether apps have keys of their own, so that each has a share of the limits.
    fn has_apps(&self) -> bool;

    /// Owner of a hub, given its name.
    fn owner_of(&self, hub: &str) -> Signer;

    /// Whether tokens of a user were revoked after this mark.
    fn has_revoked_since(&self, mark: RevocationMark, user: Option<&str>) -> bool;

    /// Whether this node closed all connections of a user after another node opened one, because of a revocation. The
    /// other node may not have received the revocation yet.
    fn has_closed(&self, user: Option<&str>, opened_ms: u64) -> bool;

    /// Checks the claims of a newer authentication of a connection's user.
    fn check_refresh(&self, user: Option<&str>, claims: &[(ByteString, ByteString)]) -> Result<(), RefreshRefused>;
}

/// Rules without tokens: all hubs belong to the fleet, and nothing is revoked.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct OpenAccess;

#[cfg(test)]
impl AccessRules for OpenAccess {
    fn has_apps(&self) -> bool {
        false
    }

    fn owner_of(&self, _hub: &str) -> Signer {
        Signer::Fleet
    }

    fn has_revoked_since(&self, _mark: RevocationMark, _user: Option<&str>) -> bool {
        false
    }

    fn has_closed(&self, _user: Option<&str>, _opened_ms: u64) -> bool {
        false
    }

    fn check_refresh(&self, _user: Option<&str>, _claims: &[(ByteString, ByteString)]) -> Result<(), RefreshRefused> {
        Ok(())
    }
}
