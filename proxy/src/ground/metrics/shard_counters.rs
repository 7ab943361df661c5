//! All counters of one shard.

use super::{
    CauseCounters, Counter, DurationBuckets, FanOutBuckets, Gauge, Histogram, HopRefusalCounters, HubCounters,
    LifetimeBuckets, Limit, LimitCounts, MoveCounters, OutcomeCounters, PassThroughCounters, RefreshCounters,
    RelayFailureCounters, ReservationCounters, SendCounters, SessionEndCounters, metered,
};

/// Number of hubs with separate counters. All others share one set.
pub(crate) const HUBS_MAX: usize = 64;

#[derive(Debug)]
struct HubTable {
    counted: Box<[HubCounters]>,
    others: Box<HubCounters>,
}

impl Default for HubTable {
    fn default() -> Self {
        Self { counted: (0..HUBS_MAX).map(|_| HubCounters::default()).collect(), others: Box::default() }
    }
}

metered! {
    pub(crate) struct Counters {
        /// Seconds the shard has been running, as a heartbeat.
        pub ticks: Counter,
        #[metric("trunkline_connections_accepted_total", "Sockets accepted.")]
        pub accepted: Counter,
        #[metric("trunkline_negotiations_total", "Negotiations answered.")]
        pub negotiated: Counter,
        #[metric("trunkline_requests_refused_total", "Requests answered with a status of 400 or above.")]
        pub requests_refused: CauseCounters,
        #[metric("trunkline_sockets_refused_total", "Sockets refused before their request was read.")]
        pub sockets_refused: CauseCounters,
        #[metric("trunkline_requests_malformed_total", "Requests that are not valid HTTP.")]
        pub malformed: Counter,
        #[metric("trunkline_origins_refused_total", "Upgrades refused because of their origin.")]
        pub refused_origins: Counter,
        #[metric(
            "trunkline_app_decisions_total",
            "Decisions of apps about negotiating clients, by outcome.",
            outcome = "let_in"
        )]
        pub let_in_by_app: Counter,
        #[metric("trunkline_app_decisions_total", outcome = "refused")]
        pub refused_by_app: Counter,
        /// Clients refused because the app did not answer.
        #[metric("trunkline_app_decisions_total", outcome = "failed")]
        pub app_not_asked: Counter,
        #[metric(
            "trunkline_unknown_receivers_total",
            "Frames of app servers for a connection that this node does not have."
        )]
        pub unknown_receivers: Counter,
        /// As of the last tick. Shards count separately, so a group with members on several shards is counted on each.
        #[metric("trunkline_groups", "Groups with members, summed over shards: a group counts once per shard.")]
        pub groups: Gauge,
        /// Value as of the last tick.
        #[metric("trunkline_users", "Users with connections, summed over shards: a user counts once per shard.")]
        pub users: Gauge,
        #[metric("trunkline_outbox_bytes", "Bytes queued for clients that read slowly.")]
        pub outbox_bytes: Gauge,
        #[metric(
            "trunkline_unfinished_message_bytes",
            "Memory of incomplete messages of clients, in bytes."
        )]
        pub unfinished_bytes: Gauge,
        #[metric(
            "trunkline_replay_bytes",
            "Bytes stored for clients with stateful reconnect until they acknowledge them."
        )]
        pub replay_bytes: Gauge,
        /// Disconnected client connections that may be resumed.
        pub away: Gauge,
        #[metric("trunkline_connections_resumed_total", "Client connections resumed over another socket.")]
        pub resumed: Counter,
        #[metric(
            "trunkline_connections_moved_total",
            "Client connections moved to or from another node with their state.",
            direction = "in"
        )]
        pub moved_in: MoveCounters,
        #[metric("trunkline_connections_moved_total", direction = "out")]
        pub moved_out: MoveCounters,
        #[metric(
            "trunkline_authentication_refreshes_total",
            "Refreshes of the access token of open client connections, by outcome."
        )]
        pub refreshes: RefreshCounters,
        /// Frames to many receivers that were dropped for slow readers.
        #[metric("trunkline_frames_dropped_total", "Frames not delivered to clients.", reason = "slow_client")]
        pub dropped: Counter,
        #[metric("trunkline_keep_alives_total", "Keep-alives sent to clients.")]
        pub keep_alives: Counter,
        #[metric("trunkline_traced_messages_total", "Messages shown by live traces.")]
        pub traced_messages: Counter,
        #[metric("trunkline_traced_messages_dropped_total", "Messages left out by live traces.")]
        pub untraced_messages: Counter,
        #[metric(..)]
        pub sessions: SessionCounters,
        #[metric("trunkline_sends_total", "Frames of app servers that carry a message to clients.")]
        pub sends: SendCounters,
        #[metric("trunkline_send_receivers", "Receivers of a send to several clients, per shard.")]
        pub send_receivers: Histogram<FanOutBuckets>,
        #[metric(
            "trunkline_handshake_duration_seconds",
            "Duration of hub handshakes: until the client's was read, and until the app server answered it.",
            stage = "client"
        )]
        pub handshakes_of_clients: Histogram<DurationBuckets>,
        #[metric("trunkline_handshake_duration_seconds", stage = "app")]
        pub handshakes_of_apps: Histogram<DurationBuckets>,
        #[metric(
            "trunkline_client_connection_duration_seconds",
            "Duration of ended client connections."
        )]
        pub lifetimes: Histogram<LifetimeBuckets>,
        /// Value as of the last tick.
        #[metric("trunkline_client_connections_homeless", "Client connections that wait for an app server.")]
        pub homeless: Gauge,
        #[metric(
            "trunkline_link_round_trip_seconds",
            "Round-trip time of pings on links to app servers, including queued frames."
        )]
        pub round_trips: Histogram<DurationBuckets>,
        #[metric("trunkline_link_dial_duration_seconds", "Time to open or reopen a link.")]
        pub dials: Histogram<DurationBuckets>,
        #[metric("trunkline_client_connections_rehomed_total", "Client connections reassigned to another app server.")]
        pub rehomed: Counter,
        #[metric(
            "trunkline_client_connections_app_rebalanced_total",
            "Client connections rebalanced to a new app server that had less than its share."
        )]
        pub app_rebalanced: Counter,
        #[metric(
            "trunkline_client_ends_passed_on_total",
            "Close notices of client connections sent to another app server, because their own was gone."
        )]
        pub ends_passed_on: Counter,
        #[metric(
            "trunkline_client_ends_lost_total",
            "Close notices of client connections that could be sent to no app server."
        )]
        pub ends_lost: Counter,
        #[metric(
            "trunkline_presence_resyncs_total",
            "Full presence reports to app servers that missed changes, counted per shard."
        )]
        pub presence_resyncs: Counter,
        #[metric(
            "trunkline_calls_failed_total",
            "Calls that failed because their app server was gone."
        )]
        pub calls_failed: Counter,
        #[metric("trunkline_tls_handshakes_total", "TLS handshakes with clients, by outcome.")]
        pub tls_handshakes: OutcomeCounters,
        #[metric("trunkline_proxy_headers_total", "PROXY protocol headers, by outcome.")]
        pub proxy_headers: OutcomeCounters,
        #[metric("trunkline_certificate_reads_total", "Reloads of certificates, by outcome.")]
        pub certificate_reads: OutcomeCounters,
        #[metric("trunkline_rule_reads_total", "Reloads of the rules in the configuration file, by outcome.")]
        pub rule_reads: OutcomeCounters,
        #[metric(..)]
        pub relay: RelayCounters,
        #[metric(..)]
        pub dial_in: DialInCounters,
        hubs: HubTable,
        #[metric(.., direction = "up", kind = "ping")]
        up_pings: LinkTraffic,
        #[metric(.., direction = "up", kind = "message")]
        up_messages: LinkTraffic,
        #[metric(.., direction = "down", kind = "ping")]
        down_pings: LinkTraffic,
        #[metric(.., direction = "down", kind = "message")]
        down_messages: LinkTraffic,
        #[metric("trunkline_limits_reached_total", "How often limits were reached.")]
        limits: LimitCounts,
    }
}

metered! {
    pub(crate) struct SessionCounters {
        #[metric("trunkline_links_lost_total", "Links that lost their sockets.")]
        pub interrupted: Counter,
        #[metric("trunkline_links_resumed_total", "Lost links that were resumed.")]
        pub resumed: Counter,
        #[metric("trunkline_frames_replayed_total", "Frames sent again over resumed links.")]
        pub replayed: Counter,
        /// The app server may have received some of them. After a goodbye, it has handled all received ones.
        #[metric(
            "trunkline_frames_lost_total",
            "Frames to app servers that were lost with the session of their link: not acknowledged, or not sent."
        )]
        pub frames_lost: Counter,
        #[metric("trunkline_link_sessions_ended_total", "Ended sessions of links, by cause.")]
        pub ended: SessionEndCounters,
    }
}

metered! {
    /// Counters of frames of one kind and direction.
    pub(crate) struct LinkTraffic {
        #[metric("trunkline_link_frames_total", "Frames on links.")]
        pub frames: Counter,
        /// Includes the length prefixes of frames.
        #[metric("trunkline_link_bytes_total", "Bytes of frames on links.")]
        pub bytes: Counter,
    }
}

metered! {
    /// Counters of forwarded requests: passed through to app servers, or forwarded to the connection's owner.
    pub(crate) struct RelayCounters {
        #[metric("trunkline_pass_through_requests_total", "Requests passed through to app servers, by outcome.")]
        pub passed: PassThroughCounters,
        #[metric(
            "trunkline_pass_through_bytes_total",
            "Bytes of passed-through bodies and upgraded connections.",
            direction = "up"
        )]
        pub bytes_up: Counter,
        #[metric("trunkline_pass_through_bytes_total", direction = "down")]
        pub bytes_down: Counter,
        #[metric("trunkline_pass_through_upgrades_total", "Passed-through upgrades accepted by app servers.")]
        pub upgrades: Counter,
        #[metric("trunkline_private_paths_total", "Requests from outside for internal paths of the fleet.")]
        pub private_paths: Counter,
        #[metric("trunkline_owner_hops_total", "Requests relayed to the node that owns their connection.")]
        pub hops: Counter,
        #[metric(
            "trunkline_owner_hop_misses_total",
            "Relayed requests for a connection that the owner node did not have."
        )]
        pub hop_misses: Counter,
        #[metric(
            "trunkline_owner_hop_duration_seconds",
            "Duration of relayed requests until the head of the answer; polls include their wait for messages."
        )]
        pub hop_durations: Histogram<DurationBuckets>,
        #[metric("trunkline_owner_hop_failures_total", "Relayed requests without an answer, by cause.")]
        pub hop_failures: RelayFailureCounters,
        #[metric(
            "trunkline_owner_hops_refused_total",
            "Requests that were refused instead of relayed to the node that owns their connection, by cause."
        )]
        pub hops_refused: HopRefusalCounters,
        #[metric(
            "trunkline_reservations_total",
            "Requests to the node that made a connection token for its connection id, by outcome: for WebSockets at \
             another node with stateful reconnect, or with a user from the app."
        )]
        pub reservations: ReservationCounters,
        #[metric(
            "trunkline_forward_marks_refused_total",
            "Requests with an invalid forward mark."
        )]
        pub marks_refused: Counter,
    }
}

metered! {
    /// Counters of the links and tokens of dial-in.
    pub(crate) struct DialInCounters {
        #[metric(
            "trunkline_door_handshakes_refused_total",
            "Links dialled by app servers and refused, because their handshake was invalid or missing."
        )]
        pub handshakes_refused: Counter,
        #[metric(
            "trunkline_door_frames_skipped_total",
            "Frames of app servers that were skipped: over the limit of a link, malformed, or not allowed."
        )]
        pub malformed: Counter,
        #[metric(
            "trunkline_door_clients_moved_total",
            "Clients moved without a loss to another link of an app server that dials in."
        )]
        pub moved: Counter,
    }
}

/// Direction of a frame on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From clients to app servers.
    Up,
    /// From app servers to clients.
    Down,
}

/// Kind of a frame on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Ping,
    Message,
}

impl LinkTraffic {
    /// Counts frames and bytes, on the shard's thread.
    pub(crate) fn count(&self, frames: u64, bytes: usize) {
        self.frames.add_alone(frames);
        self.bytes.add_alone(bytes as u64);
    }
}

impl Counters {
    pub(crate) fn hub(&self, index: usize) -> &HubCounters {
        let HubTable { counted, others } = &self.hubs;
        counted.get(index).unwrap_or(others)
    }

    pub(crate) fn hubs(&self) -> impl Iterator<Item = &HubCounters> {
        let HubTable { counted, others } = &self.hubs;
        counted.iter().chain(std::iter::once(&**others))
    }

    pub(crate) fn limit(&self, limit: Limit) -> &Counter {
        self.limits.of(limit)
    }

    pub(crate) fn traffic(&self, direction: Direction, kind: FrameKind) -> &LinkTraffic {
        match (direction, kind) {
            (Direction::Up, FrameKind::Ping) => &self.up_pings,
            (Direction::Up, FrameKind::Message) => &self.up_messages,
            (Direction::Down, FrameKind::Ping) => &self.down_pings,
            (Direction::Down, FrameKind::Message) => &self.down_messages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubs_beyond_the_bound_share_one_set() {
        let counters = Counters::default();
        [0, HUBS_MAX, HUBS_MAX + 1].iter().for_each(|index| counters.hub(*index).messages_up.increment());
        let counts = [0, 1, HUBS_MAX, HUBS_MAX + 7].map(|index| counters.hub(index).messages_up.get());
        assert_eq!(counts, [1, 0, 2, 2]);
        assert_eq!(counters.hubs().map(|hub| hub.messages_up.get()).sum::<u64>(), 3);
    }

    #[test]
    fn every_kind_of_traffic_has_a_counter_of_its_own() {
        let counters = Counters::default();
        counters.traffic(Direction::Up, FrameKind::Ping).count(1, 10);
        counters.traffic(Direction::Down, FrameKind::Ping).count(2, 20);
        let up = counters.traffic(Direction::Up, FrameKind::Ping);
        assert_eq!((up.frames.get(), up.bytes.get()), (1, 10));
    }
}
