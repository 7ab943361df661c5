//! Errors of a peer that contradicts the state of its session.

/// Error of a peer that contradicts the state of its session. The driver ends the session: its numbers can't be
/// trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It acknowledges frames that were never sent.
    #[error("frame {acknowledged} was acknowledged, but only {sent} were sent")]
    AheadOfUs {
        /// The last frame that the peer claims to have.
        acknowledged: u64,
        /// The last frame that was sent.
        sent: u64,
    },
    /// It takes back an acknowledgement.
    #[error("frame {acknowledged} was acknowledged after frame {before}")]
    Backwards {
        /// The last frame that the peer claims to have.
        acknowledged: u64,
        /// The last frame that it had claimed before.
        before: u64,
    },
    /// The value of the acknowledgement is no number.
    #[error("an acknowledgement is no number")]
    NoNumber,
    /// It could resume the session, and can't any longer.
    #[error("the peer no longer resumes sessions")]
    CapabilityLost,
}
