//! All counters of one shard.

use super::{
    CauseCounters, Counter, DialInCounters, Direction, DurationBuckets, FrameKind, Gauge, Histogram, HubCounters,
    LifetimeBuckets, Limit, LinkTraffic, MoveCounters, OutcomeCounters, RelayCounters, RestoreCounters, SendCounters,
    SessionCounters,
};

/// Hubs with counters of their own; all others share one set.
const HUBS_MAX: usize = 64;

/// Counters of all hubs.
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

/// Counters of one shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Seconds that the shard has run, for the heartbeat.
    pub ticks: Counter,
    pub accepted: Counter,
    pub negotiated: Counter,
    /// Requests answered with a status of 400 or above.
    pub requests_refused: CauseCounters,
    /// Sockets refused before their request was read.
    pub sockets_refused: CauseCounters,
    /// Requests that are not valid HTTP.
    pub malformed: Counter,
    /// Upgrades refused because of their origin.
    pub refused_origins: Counter,
    /// Clients that the app authorized or redirected.
    pub let_in_by_app: Counter,
    /// Clients that the app refused.
    pub refused_by_app: Counter,
    /// Clients refused because the app gave no answer.
    pub app_not_asked: Counter,
    /// Downward frames for a connection that is not here.
    pub unknown_receivers: Counter,
    /// Groups with members here, as of the last tick.
    pub groups: Gauge,
    /// Users with connections here, as of the last tick.
    pub users: Gauge,
    /// Bytes in the outboxes of clients.
    pub outbox_bytes: Gauge,
    /// Bytes that are kept for clients until they acknowledge them.
    pub replay_bytes: Gauge,
    /// Client connections that have no socket, and wait for their clients.
    pub away: Gauge,
    /// Client connections that went on over another socket.
    pub resumed: Counter,
    /// Client connections that came from other nodes.
    pub moved_in: MoveCounters,
    /// Client connections that went to other nodes.
    pub moved_out: MoveCounters,
    /// Clients that have begun anew and asked for what their lost connection had.
    pub restores: RestoreCounters,
    /// Frames to many receivers, dropped for those that read too slowly.
    pub dropped: Counter,
    pub keep_alives: Counter,
    /// Messages told by live traces.
    pub traced_messages: Counter,
    /// Messages that live traces have left out.
    pub untraced_messages: Counter,
    pub sessions: SessionCounters,
    pub sends: SendCounters,
    /// Time until the hub handshake of a client was read.
    pub handshakes_of_clients: Histogram<DurationBuckets>,
    /// Time until the app server answered it.
    pub handshakes_of_apps: Histogram<DurationBuckets>,
    /// Lifetimes of closed client connections.
    pub lifetimes: Histogram<LifetimeBuckets>,
    /// Client connections that wait for an app server, as of the last tick.
    pub homeless: Gauge,
    pub round_trips: Histogram<DurationBuckets>,
    /// Time to open a link.
    pub dials: Histogram<DurationBuckets>,
    /// Client connections that were reassigned to another app server.
    pub rehomed: Counter,
    /// Reassigned connections that went to an app server which had come, and had fewer than its share.
    pub app_rebalanced: Counter,
    /// Ends of client connections told to another app server than the one that had them.
    pub ends_passed_on: Counter,
    /// Ends of client connections that no app server was told of.
    pub ends_lost: Counter,
    /// Presence told anew to an app server that could not follow the changes.
    pub presence_resyncs: Counter,
    /// Calls answered with an error because their app server was gone.
    pub calls_failed: Counter,
    /// TLS handshakes of clients.
    pub tls_handshakes: OutcomeCounters,
    /// PROXY protocol headers of load balancers.
    pub proxy_headers: OutcomeCounters,
    pub certificate_reads: OutcomeCounters,
    /// Reads of the rules, after their file has changed.
    pub rule_reads: OutcomeCounters,
    pub relay: RelayCounters,
    pub dial_in: DialInCounters,
    hubs: HubTable,
    traffic: [LinkTraffic; 4],
    limits: [Counter; Limit::ALL.len()],
}

impl Counters {
    /// Returns the counters of a hub by its index.
    #[must_use]
    pub(crate) fn hub(&self, index: usize) -> &HubCounters {
        let HubTable { counted, others } = &self.hubs;
        counted.get(index).unwrap_or(others)
    }

    /// Returns the counters of all hubs.
    pub(crate) fn hubs(&self) -> impl Iterator<Item = &HubCounters> {
        let HubTable { counted, others } = &self.hubs;
        counted.iter().chain(std::iter::once(&**others))
    }

    /// Returns how often a limit was reached.
    #[must_use]
    pub(crate) fn limit(&self, limit: Limit) -> &Counter {
        let [
            connections,
            per_address,
            connects,
            pending,
            pipes,
            relayed,
            per_client,
            per_upstream,
            resets,
            body_time,
            descriptors,
            head_time,
            head_size,
            body,
            message,
            messages,
            bytes,
            groups,
            group_name,
            log_lines,
        ] = &self.limits;
        match limit {
            Limit::Connections => connections,
            Limit::ConnectionsPerAddress => per_address,
            Limit::Connects => connects,
            Limit::PendingPerAddress => pending,
            Limit::PendingPipes => pipes,
            Limit::PassThrough => relayed,
            Limit::PassThroughPerAddress => per_client,
            Limit::PassThroughPerUpstream => per_upstream,
            Limit::StreamResets => resets,
            Limit::BodyTime => body_time,
            Limit::Descriptors => descriptors,
            Limit::HeadTime => head_time,
            Limit::HeadSize => head_size,
            Limit::BodySize => body,
            Limit::MessageSize => message,
            Limit::Messages => messages,
            Limit::Bytes => bytes,
            Limit::Groups => groups,
            Limit::GroupName => group_name,
            Limit::LogLines => log_lines,
        }
    }

    /// Returns the traffic on links of one direction and kind.
    #[must_use]
    pub(crate) fn traffic(&self, direction: Direction, kind: FrameKind) -> &LinkTraffic {
        let [up_ping, up_message, down_ping, down_message] = &self.traffic;
        match (direction, kind) {
            (Direction::Up, FrameKind::Ping) => up_ping,
            (Direction::Up, FrameKind::Message) => up_message,
            (Direction::Down, FrameKind::Ping) => down_ping,
            (Direction::Down, FrameKind::Message) => down_message,
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
    fn every_limit_and_kind_of_traffic_has_a_counter_of_its_own() {
        let counters = Counters::default();
        for (count, (limit, _)) in (1..).zip(Limit::ALL) {
            counters.limit(limit).add(count);
        }
        let counted = Limit::ALL.map(|(limit, _)| counters.limit(limit).get());
        assert!(counted.into_iter().eq(1..=Limit::ALL.len() as u64), "{counted:?}");
        counters.traffic(Direction::Up, FrameKind::Ping).count(1, 10);
        counters.traffic(Direction::Down, FrameKind::Ping).count(2, 20);
        let up = counters.traffic(Direction::Up, FrameKind::Ping);
        assert_eq!((up.frames.get(), up.bytes.get()), (1, 10));
    }
}
