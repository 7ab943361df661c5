//! Client methods that the hub calls.

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
        /// Requests confirmation of an action.
        fn confirm(question: &str) -> bool = "Confirm";
        /// Requests a vote in a poll.
        fn vote(question: &str) -> bool = "Vote";
    }
}
