//! Meaning of the end of a link for the log, and for the connections of its session.

use trunkline_link::LinkEnd;
use trunkline_protocol::cause::Cause;

use crate::connection::ConnectionClose;

/// The error that an app sees for connections that went with their link.
const LOST: &str = "The link to the proxy was lost.";

/// Whether people expect this end.
pub(super) fn is_planned(end: &LinkEnd) -> bool {
    matches!(end, LinkEnd::Closed | LinkEnd::Goodbye(_) | LinkEnd::Shutdown)
}

/// Returns the close that `on_disconnected` sees when the session ends with it: a planned stop is no error.
pub(super) fn end_of_connections(end: &LinkEnd) -> ConnectionClose {
    match end {
        LinkEnd::Shutdown => ConnectionClose::new(Cause::AppStopped),
        LinkEnd::Goodbye(_) => ConnectionClose::with_error(Cause::Drained, LOST),
        _ => ConnectionClose::with_error(Cause::LinkLost, LOST),
    }
}
