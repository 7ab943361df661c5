//! Counters of the admin port itself.

use crate::metrics::Counter;

/// Counters of the admin port.
#[derive(Debug, Default)]
pub(crate) struct AdminCounters {
    /// Requests with a wrong token.
    pub(super) wrong_token: Counter,
    /// Requests whose token was not compared, because too many were wrong.
    pub(super) braked: Counter,
    /// Requests for a host that is none of this machine's.
    pub(super) foreign_host: Counter,
    /// Requests for a channel that come from no node with our key.
    pub(super) strangers: Counter,
    /// Connections that were closed for newer ones while they waited for a request.
    pub(super) displaced: Counter,
    /// Connections that were turned away, because none could be closed for them.
    pub(super) turned_away: Counter,
    /// Connections whose request did not come in time.
    pub(super) overdue: Counter,
}
