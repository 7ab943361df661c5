//! Wrong rules of moves, each made by what stands around the machines: it alters what goes in or comes out.

/// Rule of a move that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveMutant {
    /// The new owner delivers what began one epoch before its own.
    BeginsTooEarly,
    /// The new owner leaves the first epoch that is its own to the old one.
    BeginsTooLate,
    /// The new owner delivers late copies of sends that the old one has delivered.
    ForgetsEpochs,
    /// App servers are asked for their epochs before the connection is paused.
    AsksBeforeThePause,
    /// Only the connection's own app server is asked for its epoch.
    AsksOwnAppOnly,
    /// The state leaves before all app servers have answered.
    LeavesBeforeAnswers,
    /// An app server answers a move while sends that began before are not queued.
    AnswersBeforeSends,
    /// Sends carry no epoch.
    SendsWithoutEpoch,
    /// A frame for a paused client alone leaves for its old node.
    IgnoresThePause,
    /// A pause is acknowledged while a frame for the client is on its way to the link.
    AcknowledgesPauseAtOnce,
    /// Frames that were held back in a pause are dropped at its end.
    DropsWhatWasHeldBack,
    /// A client that is paused is resumed by its old node only.
    StaysAtOldNode,
    /// Frames that had no number yet stay behind.
    LeavesHeldFrames,
    /// The new owner counts the client's messages from the first one again.
    CountsFromOneAgain,
    /// The new owner numbers what it sends one too high.
    NumbersTooHigh,
    /// Sends to a connection that has not arrived are dropped.
    DropsWhileArriving,
    /// The old owner takes a connection back whose state has left.
    TakesBackWhatIsGiven,
    /// The state of a connection is given to everybody who asks.
    GivesTwice,
    /// Frames that came during a move that failed are dropped.
    ForgetsFailedMoves,
    /// The app server is not resumed when a move has failed.
    LeavesAppPaused,
    /// A client comes back to the old owner while the connection departs.
    ClaimsWhileDeparting,
    /// The old owner does not cut the socket of a client that has come back elsewhere.
    LooksWithoutCut,
    /// A socket is read on after another one has taken its place.
    ReadsOldSockets,
    /// Messages are acknowledged that have not come.
    AcknowledgesTooMuch,
    /// Messages that come again over a new socket are passed on again.
    PassesOnTwice,
    /// A connection that does not arrive is kept.
    KeepsArrivals,
    /// A connection whose client does not come back is kept.
    KeepsTheAbsent,
    /// An app server waits for ever for the new node of a connection whose old one is lost.
    WaitsForEver,
    /// An app server heeds a node that has given the connection away.
    HeedsOldNodes,
    /// A connection that has moved is closed by its old node.
    ClosesWhatHasMoved,
}

impl MoveMutant {
    /// All mutants that are tried.
    pub const ALL: [Self; 30] = [
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
    ];
}
