//! Mutants of moves, applied around the state machines: they change inputs or outputs.

/// Broken rule of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveMutant {
    /// The new owner also delivers the epoch before its first.
    BeginsTooEarly,
    /// The new owner leaves its first epoch to the old one.
    BeginsTooLate,
    /// The new owner delivers late copies of sends that the old one has delivered.
    ForgetsEpochs,
    /// App servers are asked for their epochs before the connection is paused.
    AsksBeforeThePause,
    /// Only the connection's own app server is asked for its epoch.
    AsksOwnAppOnly,
    /// The state leaves before all app servers have answered.
    LeavesBeforeAnswers,
    /// An app server answers a move before earlier sends are queued.
    AnswersBeforeSends,
    /// Sends carry no epoch.
    SendsWithoutEpoch,
    /// A frame to a paused client alone goes to its old node.
    IgnoresThePause,
    /// A pause is acknowledged while a frame for the client is still being queued.
    AcknowledgesPauseAtOnce,
    /// Frames held during a pause are dropped at its end.
    DropsWhatWasHeldBack,
    /// Only its old node can resume a paused client.
    StaysAtOldNode,
    /// Unnumbered frames are not moved.
    LeavesHeldFrames,
    /// The new owner restarts counting the client's messages.
    CountsFromOneAgain,
    /// The new owner's sequence numbers are too high by one.
    NumbersTooHigh,
    /// Sends to an arriving connection are dropped.
    DropsWhileArriving,
    /// The old owner takes back a connection after its state has left.
    TakesBackWhatIsGiven,
    /// The state of a connection is given to every node that asks.
    GivesTwice,
    /// Frames received during a failed move are dropped.
    ForgetsFailedMoves,
    /// The app server is not resumed after a failed move.
    LeavesAppPaused,
    /// A client reconnects to the old owner while the connection departs.
    ClaimsWhileDeparting,
    /// The old owner does not cut the socket of a client that reconnected elsewhere.
    LooksWithoutCut,
    /// A replaced socket is still read.
    ReadsOldSockets,
    /// Messages are acknowledged before they arrive.
    AcknowledgesTooMuch,
    /// Messages repeated over a new socket are forwarded again.
    PassesOnTwice,
    /// A connection that does not arrive is kept.
    KeepsArrivals,
    /// A connection without a returning client is kept.
    KeepsTheAbsent,
    /// An app server waits forever for the new node of a connection after losing the old one.
    WaitsForEver,
    /// An app server still obeys a node that has given the connection away.
    HeedsOldNodes,
    /// The old node closes a moved connection.
    ClosesWhatHasMoved,
    /// A sender waits for the client's window with a route, so a pause waits for the sender.
    PassesBeforeTheWindow,
    /// Marks are not sent again after a move or over new links.
    ForgetsMarks,
    /// A node confirms marks of data that it still keeps for the client.
    ConfirmsUnreadMarks,
}

impl MoveMutant {
    /// All mutants under test.
    pub const ALL: [Self; 33] = [
        Self::BeginsTooEarly,
        Self::BeginsTooLate,
        Self::ForgetsEpochs,
        Self::AsksBeforeThePause,
        Self::AsksOwnAppOnly,
        Self::LeavesBeforeAnswers,
        Self::AnswersBeforeSends,
        Self::SendsWithoutEpoch,
        Self::IgnoresThePause,
        Self::AcknowledgesPauseAtOnce,
        Self::DropsWhatWasHeldBack,
        Self::StaysAtOldNode,
        Self::LeavesHeldFrames,
        Self::CountsFromOneAgain,
        Self::NumbersTooHigh,
        Self::DropsWhileArriving,
        Self::TakesBackWhatIsGiven,
        Self::GivesTwice,
        Self::ForgetsFailedMoves,
        Self::LeavesAppPaused,
        Self::ClaimsWhileDeparting,
        Self::LooksWithoutCut,
        Self::ReadsOldSockets,
        Self::AcknowledgesTooMuch,
        Self::PassesOnTwice,
        Self::KeepsArrivals,
        Self::KeepsTheAbsent,
        Self::WaitsForEver,
        Self::HeedsOldNodes,
        Self::ClosesWhatHasMoved,
        Self::PassesBeforeTheWindow,
        Self::ForgetsMarks,
        Self::ConfirmsUnreadMarks,
    ];
}
