//! Counters of the admin port itself.

use std::sync::Arc;

use super::audit::AuditCounters;
use crate::metrics::{Counter, metered};

metered! {
    /// Counters of the admin port.
    pub(crate) struct AdminCounters {
        /// Requests with a wrong token.
        #[metric(
            "trunkline_admin_requests_refused_total",
            "Requests refused at the admin port, by reason.",
            reason = "token"
        )]
        pub(super) wrong_token: Counter,
        /// Requests with a wrong token that were answered late, because many from there were wrong.
        #[metric("trunkline_admin_requests_refused_total", reason = "too_many_wrong_tokens")]
        pub(super) braked: Counter,
        /// Requests for a host that is none of this machine's.
        #[metric("trunkline_admin_requests_refused_total", reason = "host")]
        pub(super) foreign_host: Counter,
        /// Requests for a channel that come from no node with our key.
        #[metric("trunkline_admin_requests_refused_total", reason = "stranger")]
        pub(super) strangers: Counter,
        /// Acts of operators, by the audit log.
        pub(super) audit: Arc<AuditCounters>,
        /// Connections that were closed for newer ones while they waited for a request.
        #[metric(
            "trunkline_admin_connections_closed_total",
            "Connections to the admin port that the node has closed, by reason.",
            reason = "displaced"
        )]
        pub(super) displaced: Counter,
        /// Connections that were turned away, because none could be closed for them.
        #[metric("trunkline_admin_connections_closed_total", reason = "turned_away")]
        pub(super) turned_away: Counter,
        /// Connections whose request did not come in time.
        #[metric("trunkline_admin_connections_closed_total", reason = "overdue")]
        pub(super) overdue: Counter,
    }
}
