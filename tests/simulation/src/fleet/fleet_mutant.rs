//! Mutants of a fleet, each with one broken rule that applies to all nodes.

/// Broken rule of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetMutant {
    /// A new session of a node link starts without the sender's interest.
    ForgetsInterestOfNewSessions,
    /// Interest added while a link has no socket is never sent over it.
    ForgetsNewsWithoutSocket,
    /// Interest from one session remains valid in the next.
    KeepsInterestOfOldSessions,
    /// A sweep withdraws a bucket that still has members.
    SweepsTooEarly,
    /// Stale interest remains valid.
    IgnoresStaleness,
    /// Interest is confirmed as of the answer's time instead of the beat's.
    ConfirmsAtTheAnswer,
    /// Beats are answered before queued messages.
    AnswersBeatsAtOnce,
    /// A group join is confirmed to clients before any node is notified of the member.
    AnswersBeforeTelling,
    /// A group join is confirmed once nodes are notified, without waiting for their acknowledgements.
    WaitsForNobody,
    /// Nodes without a socket on their link are not waited for.
    WaitsForSocketsAlone,
    /// The wait for an unresponsive node is shorter than its use of old interest.
    WaitsTooShort,
    /// A node's answer to an older beat also acknowledges later messages.
    TakesOlderAnswers,
    /// Everything is sent to all nodes.
    IgnoresInterest,
    /// Frames replayed by a resumed link are applied again.
    AppliesReplays,
    /// A node relays relayed messages.
    PassesRelaysOn,
    /// A node with two addresses is linked twice.
    LinksAddresses,
    /// A node that reaches itself creates a link to itself.
    LinksItself,
    /// The hash of a view depends on the order of discovery.
    HashesInOrder,
    /// Members that are gone are kept.
    KeepsTheGone,
    /// Nodes with differing views never greet again.
    NeverGreetsAgain,
    /// Messages without room are dropped but not counted.
    DropsUncounted,
    /// Messages are queued even though the ring is full.
    OverfillsRings,
    /// Essential messages are queued even without reserved room.
    TellsWithoutRoom,
    /// An answer refers to the previous request.
    AnswersAnotherQuestion,
}

impl FleetMutant {
    /// All mutants under test.
    pub const ALL: [Self; 24] = [
        Self::ForgetsInterestOfNewSessions,
        Self::ForgetsNewsWithoutSocket,
        Self::KeepsInterestOfOldSessions,
        Self::SweepsTooEarly,
        Self::IgnoresStaleness,
        Self::ConfirmsAtTheAnswer,
        Self::AnswersBeatsAtOnce,
        Self::AnswersBeforeTelling,
        Self::WaitsForNobody,
        Self::WaitsForSocketsAlone,
        Self::WaitsTooShort,
        Self::TakesOlderAnswers,
        Self::IgnoresInterest,
        Self::AppliesReplays,
        Self::PassesRelaysOn,
        Self::LinksAddresses,
        Self::LinksItself,
        Self::HashesInOrder,
        Self::KeepsTheGone,
        Self::NeverGreetsAgain,
        Self::DropsUncounted,
        Self::OverfillsRings,
        Self::TellsWithoutRoom,
        Self::AnswersAnotherQuestion,
    ];
}
