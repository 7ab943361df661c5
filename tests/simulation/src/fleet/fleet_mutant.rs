//! Wrong rules of a fleet, each broken by one node logic that all nodes share.

/// Rule of a fleet that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetMutant {
    /// A new session of a node link begins without the interest of its sender.
    ForgetsInterestOfNewSessions,
    /// Interest that comes up while a link has no socket is never told over it.
    ForgetsNewsWithoutSocket,
    /// Interest that was told in one session counts in the next one.
    KeepsInterestOfOldSessions,
    /// A sweep takes back a bucket that still has members.
    SweepsTooEarly,
    /// Interest counts however old it is.
    IgnoresStaleness,
    /// Interest is confirmed as of the answer, not of the question.
    ConfirmsAtTheAnswer,
    /// Beats are answered before what is queued.
    AnswersBeatsAtOnce,
    /// Clients are told that they are in a group before any node is told that the group has members.
    AnswersBeforeTelling,
    /// They are told so as soon as the nodes are told.
    WaitsForNobody,
    /// Nodes whose link has no socket are not waited for.
    WaitsForSocketsAlone,
    /// A node that does not hear is waited for a shorter time than it goes by what it knew.
    WaitsTooShort,
    /// A node counts as having heard what was told behind a beat that it answers.
    TakesOlderAnswers,
    /// Everything is sent to all nodes.
    IgnoresInterest,
    /// Frames that a resumed link brings again are applied again.
    AppliesReplays,
    /// A node passes on what was passed on to it.
    PassesRelaysOn,
    /// A node under two addresses is linked twice.
    LinksAddresses,
    /// A node that reaches itself links itself.
    LinksItself,
    /// The hash of a view depends on the order in which members were met.
    HashesInOrder,
    /// Members that are gone stay.
    KeepsTheGone,
    /// Nodes that see other members never greet again.
    NeverGreetsAgain,
    /// Messages that find no room are dropped without being counted.
    DropsUncounted,
    /// Messages are queued though the ring is full.
    OverfillsRings,
    /// Messages that must not be missing are queued though there is no room even for them.
    TellsWithoutRoom,
    /// An answer names the question before.
    AnswersAnotherQuestion,
}

impl FleetMutant {
    /// All mutants that are tried.
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
