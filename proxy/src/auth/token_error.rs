//! Reasons for refusing an access token, with the text for its bearer and the label in metrics.

use jsonwebtoken::errors::{Error, ErrorKind};

/// Reason for refusing an access token. The texts are for its bearer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    #[error("the access token has {bytes} bytes, but --jwt-max-bytes allows {max}")]
    TooLarge { bytes: usize, max: usize },
    /// The text is not a JWT, or not signed.
    #[error("the access token is not valid: it is no signed JWT of an algorithm that is known")]
    Malformed,
    #[error("the access token is not valid: no key is known that it could be signed with")]
    UnknownKey,
    /// A key fits, but its signature does not.
    #[error("the access token is not valid: its signature is wrong")]
    Signature,
    #[error("the access token is not valid: it has expired")]
    Expired,
    /// An operator has revoked it before its end.
    #[error("the access token is not valid: it was revoked, so log in again for a new one")]
    Revoked,
    #[error("the access token is not valid: its time has not come yet")]
    Immature,
    /// The issuer is not an accepted one.
    #[error("the access token is not valid: its issuer is not allowed here")]
    Issuer,
    /// The audience is not an accepted one.
    #[error("the access token is not valid: it is for another audience")]
    Audience,
    /// Its header has a part that the reader must understand (`crit`).
    #[error("the access token is not valid: its header demands what is not known here (`crit`)")]
    Critical,
    /// A claim is missing or malformed.
    #[error("the access token is not valid: {0}")]
    Claim(String),
}

impl TokenError {
    /// Labels in metrics, each at its [`index`](Self::index).
    pub(crate) const LABELS: [&'static str; 11] = [
        "too_large",
        "malformed",
        "unknown_key",
        "signature",
        "expired",
        "immature",
        "issuer",
        "audience",
        "claim",
        "critical",
        "revoked",
    ];

    /// Returns the index of its label.
    pub(super) fn index(&self) -> usize {
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
            Self::Critical => 9,
            Self::Revoked => 10,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let all = [
            TokenError::TooLarge { bytes: 2, max: 1 },
            TokenError::Malformed,
            TokenError::UnknownKey,
            TokenError::Signature,
            TokenError::Expired,
            TokenError::Immature,
            TokenError::Issuer,
            TokenError::Audience,
            TokenError::Claim("its claim \"exp\" is missing".into()),
            TokenError::Critical,
            TokenError::Revoked,
        ];
        let indices: Vec<_> = all.iter().map(TokenError::index).collect();
        assert_eq!(indices, (0..TokenError::LABELS.len()).collect::<Vec<_>>());
    }
}
