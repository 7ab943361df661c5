//! What the end of a link means for people, and for the connections of its session.

use trunkline_link::LinkEnd;
use trunkline_protocol::cause::Cause;

use crate::connection::End;

/// The error that an app sees for connections that went with their link.
const LOST: &str = "The link to the proxy was lost.";

/// Whether people expect this end.
pub(super) fn is_planned(end: &LinkEnd) -> bool {
    matches!(end, LinkEnd::Closed | LinkEnd::Goodbye(_) | LinkEnd::Shutdown)
}

/// What `on_disconnected` is told when the session ends with it: a planned stop is no error.
pub(super) fn end_of_connections(end: &LinkEnd) -> End {
    match end {
        LinkEnd::Shutdown => End::of(Cause::AppStopped),
        LinkEnd::Goodbye(_) => End::by(Cause::Drained, LOST),
        _ => End::by(Cause::LinkLost, LOST),
    }
}
