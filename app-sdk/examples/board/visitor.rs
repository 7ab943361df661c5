//! Extractor for the caller and the room.

use trunkline::FromContext;

/// The calling user, and the room from the connection URL.
///
/// Both come from the connect request, so they survive a move to another app server.
#[derive(Debug, FromContext)]
pub(crate) struct Visitor {
    #[user]
    pub(crate) name: String,
    #[query("room")]
    pub(crate) room: String,
}
