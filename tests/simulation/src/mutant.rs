//! Mutants of the session, applied around the state machine: they change inputs or outputs.

/// Broken rule of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// An acknowledgement includes one frame that was not taken.
    AcknowledgesOneTooMany,
    /// A frame is acknowledged when read, before its consumer has it.
    AcknowledgesBeforeTaken,
    /// No frame is ever acknowledged.
    NeverAcknowledges,
    /// Each keep-alive repeats the last acknowledgement.
    AcknowledgesWhenIdle,
    /// Replayed duplicates are delivered.
    HandsOutDuplicates,
    /// The upgrade reports one frame fewer than was taken, without adjusting the numbering.
    ReplaysFromOneBefore,
    /// The upgrade reports one frame too many.
    ReplaysFromOneBehind,
    /// Acknowledgements are ignored: nothing is trimmed.
    NeverTrims,
    /// Frames are trimmed as soon as they are written to a socket.
    TrimsWhatIsSent,
    /// A new socket restarts counting at 1.
    NumbersFromOneAgain,
    /// Pings count as frames.
    CountsPings,
    /// Handshake frames are counted.
    CountsHandshakes,
    /// An incomplete frame from an old socket is joined with the new socket's data.
    KeepsHalfFrames,
    /// The app server keeps reading the old socket.
    ReadsTwoSockets,
    /// An unknown session is started under its old id.
    BeginsUnknownSessions,
    /// The app server gives sessions up after a quarter of the window.
    GivesUpTooEarly,
    /// The app server never gives up, even with a full ring.
    NeverGivesUp,
    /// The proxy ends a session as soon as its socket is lost.
    EndsWithTheSocket,
    /// The proxy keeps a session after the window.
    IgnoresTheWindow,
    /// Frames are queued even though the ring is full.
    OverfillsTheRing,
    /// Unsent frames are not returned as left over.
    ForgetsUnsent,
    /// A dead socket is never detected.
    TrustsTheDead,
    /// A pool to an app server that was given up numbers its sessions like the one before.
    RestartsNumbers,
    /// The app server keeps sessions of an earlier pool without a socket.
    KeepsEarlierPools,
    /// A thawed process catches up on missed ticks before it reads.
    MakesUpForTicks,
}

impl Mutant {
    /// All mutants under test.
    pub const ALL: [Self; 25] = [
        Self::AcknowledgesOneTooMany,
        Self::AcknowledgesBeforeTaken,
        Self::NeverAcknowledges,
        Self::AcknowledgesWhenIdle,
        Self::HandsOutDuplicates,
        Self::ReplaysFromOneBefore,
        Self::ReplaysFromOneBehind,
        Self::NeverTrims,
        Self::TrimsWhatIsSent,
        Self::NumbersFromOneAgain,
        Self::CountsPings,
        Self::CountsHandshakes,
        Self::KeepsHalfFrames,
        Self::ReadsTwoSockets,
        Self::BeginsUnknownSessions,
        Self::GivesUpTooEarly,
        Self::NeverGivesUp,
        Self::EndsWithTheSocket,
        Self::IgnoresTheWindow,
        Self::OverfillsTheRing,
        Self::ForgetsUnsent,
        Self::TrustsTheDead,
        Self::RestartsNumbers,
        Self::KeepsEarlierPools,
        Self::MakesUpForTicks,
    ];
}
