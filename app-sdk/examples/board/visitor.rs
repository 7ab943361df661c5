//! Extractor of the caller and of its room.

use trunkline::FromContext;

/// The caller: a user, in the room that the URL of its connection names.
///
/// Room and user are parts of the connect request, so they are known wherever the client goes.
#[derive(Debug, FromContext)]
pub(crate) struct Visitor {
    #[user]
    pub(crate) name: String,
    #[query("room")]
    pub(crate) room: String,
}
