//! Why an access token is refused: what its bearer is told, and what is counted.

use jsonwebtoken::errors::{Error, ErrorKind};

/// Why a token is no good. The texts are for its bearer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// It is not even looked at.
    #[error("the access token has {bytes} bytes, but --jwt-max-bytes allows {max}")]
    TooLarge {
        bytes: usize,
        /// What it may have.
        max: usize,
    },
    /// It is none, or is not signed.
    #[error("the access token is not valid: it is no signed JWT of an algorithm that is known")]
    Malformed,
    #[error("the access token is not valid: no key is known that it could be signed with")]
    UnknownKey,
    /// A key fits, but did not sign it.
    #[error("the access token is not valid: its signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the access token is not valid: it has expired")]
    Expired,
    /// Its time has not come.
    #[error("the access token is not valid: its time has not come yet")]
    Immature,
    /// Somebody else issued it.
    #[error("the access token is not valid: its issuer is not allowed here")]
    Issuer,
    /// It is for somebody else.
    #[error("the access token is not valid: it is for another audience")]
    Audience,
    /// Something that has to be there is not.
    #[error("the access token is not valid: {0}")]
    Claim(String),
}

impl TokenError {
    /// What they are counted under, each at its [`place`](Self::place).
    pub(super) const LABELS: [&'static str; 9] =
        ["too_large", "malformed", "unknown_key", "signature", "expired", "immature", "issuer", "audience", "claim"];

    pub(super) fn place(&self) -> usize {
        match self {
            Self::TooLarge { .. } => 0,
            Self::Malformed => 1,
            Self::UnknownKey => 2,
            Self::Signature => 3,
            Self::Expired => 4,
            Self::Immature => 5,
            Self::Issuer => 6,
            Self::Audience => 7,
            Self::Claim(_) => 8,
        }
    }
}

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::Immature,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::MissingRequiredClaim(name) => Self::Claim(format!("its claim {name:?} is missing")),
            ErrorKind::InvalidClaimFormat(name) => Self::Claim(format!("its claim {name:?} is malformed")),
            _ => Self::Malformed,
        }
    }
}
