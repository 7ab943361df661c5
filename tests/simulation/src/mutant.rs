//! Wrong rules, each made by what stands around the machine: it alters what goes in or comes out.

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// An acknowledgement names one frame more than was taken.
    AcknowledgesOneTooMany,
    /// A frame is acknowledged when it was read, before its consumer has it.
    AcknowledgesBeforeTaken,
    /// No frame is ever acknowledged.
    NeverAcknowledges,
    /// Each keep-alive repeats the last acknowledgement.
    AcknowledgesWhenIdle,
    /// Replayed frames are handed out, though they were before.
    HandsOutDuplicates,
    /// The upgrade tells one frame less than was taken, and the numbering doesn't know.
    ReplaysFromOneBefore,
    /// The upgrade tells one frame more.
    ReplaysFromOneBehind,
    /// Acknowledgements that come are not heeded: nothing is trimmed.
    NeverTrims,
    /// Frames written to a socket are trimmed at once.
    TrimsWhatIsSent,
    /// A new socket counts from 1 again.
    NumbersFromOneAgain,
    /// Pings count as frames.
    CountsPings,
    /// Handshake frames are counted.
    CountsHandshakes,
    /// The beginning of a frame that an old socket left is put before what the new one brings.
    KeepsHalfFrames,
    /// The app server goes on reading the old socket.
    ReadsTwoSockets,
    /// A session that the app server doesn't know is begun under its old id.
    BeginsUnknownSessions,
    /// The app server gives sessions up in a quarter of the window.
    GivesUpTooEarly,
    /// The app server never gives up, though its ring is full.
    NeverGivesUp,
    /// The proxy ends a session as soon as its socket is lost.
    EndsWithTheSocket,
    /// The proxy goes on with a session after the window.
    IgnoresTheWindow,
    /// Frames are queued though the ring is full.
    OverfillsTheRing,
    /// Frames never sent are not counted as left over.
    ForgetsUnsent,
    /// A dead socket is never noticed.
    TrustsTheDead,
    /// A process that was frozen makes up for the ticks that it missed, before it reads.
    MakesUpForTicks,
}

impl Mutant {
    /// All mutants that are tried.
    pub const ALL: [Self; 23] = [
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
        Self::MakesUpForTicks,
    ];
}
