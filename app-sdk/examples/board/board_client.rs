//! Methods that clients of the board offer.

use crate::note::Note;

trunkline::client_interface! {
    /// A client of the board.
    pub(crate) trait BoardClient: TypeScript {
        fn entered(name: &str) = "Entered";
        fn left(name: &str, cause: &str) = "Left";
        fn noted(note: &Note) = "Noted";
        fn removed(id: &str) = "Removed";
        fn cleared(by: &str) = "Cleared";
        fn announced(text: &str) = "Announced";
        /// Asks whether somebody means it.
        fn confirm(question: &str) -> bool = "Confirm";
        /// Asks for a vote.
        fn vote(question: &str) -> bool = "Vote";
    }
}
