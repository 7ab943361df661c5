//! Counters of the admin port itself.

use std::sync::Arc;

use super::audit::AuditCounters;
use crate::ground::metrics::{Counter, metered};

metered! {
    pub(crate) struct AdminCounters {
        /// Requests with a wrong token.
        #[metric(
            "trunkline_admin_requests_refused_total",
            "Requests refused at the admin port, by reason.",
            reason = "token"
        )]
        pub(super) wrong_token: Counter,
        /// Requests with a wrong token that were delayed by the throttle.
        #[metric("trunkline_admin_requests_refused_total", reason = "too_many_wrong_tokens")]
        pub(super) braked: Counter,
        /// Requests for a host name of another machine.
        #[metric("trunkline_admin_requests_refused_total", reason = "host")]
        pub(super) foreign_host: Counter,
        /// Channel requests from peers without our key.
        #[metric("trunkline_admin_requests_refused_total", reason = "stranger")]
        pub(super) strangers: Counter,
        /// Operator actions, counted by the audit log.
        pub(super) audit: Arc<AuditCounters>,
        /// Idle connections closed in favour of newer ones.
        #[metric(
            "trunkline_admin_connections_closed_total",
            "Connections to the admin port closed by the node, by reason.",
            reason = "displaced"
        )]
        pub(super) displaced: Counter,
        /// Connections refused because no other could be closed for them.
        #[metric("trunkline_admin_connections_closed_total", reason = "turned_away")]
        pub(super) turned_away: Counter,
        /// Connections closed because no request arrived in time.
        #[metric("trunkline_admin_connections_closed_total", reason = "overdue")]
        pub(super) overdue: Counter,
    }
}
