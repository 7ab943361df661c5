//! Counters of one hub on one shard, and of the operator's rules.
//!
//! Counters of rules are by label. They persist when the rules are reloaded. A rule gets its counters when it is
//! activated, so that counting needs no lock or lookup.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::Transport;

use super::{Counter, Gauge, LabelledSample, Measure, Sample, metered};

#[derive(Debug)]
pub(crate) struct CauseCounters([Counter; Cause::COUNT]);

impl CauseCounters {
    pub(crate) fn count(&self, cause: Cause) {
        if let Some(counter) = self.0.get(cause.index()) {
            counter.increment();
        }
    }

    pub(crate) fn of(&self, cause: Cause) -> u64 {
        self.0.get(cause.index()).map_or(0, Counter::get)
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

impl Default for CauseCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// Shows only causes that occurred, because most are impossible for a given counter.
impl Measure for CauseCounters {
    fn samples<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<LabelledSample> {
        let all: Vec<_> = all.collect();
        let sums = Cause::all().map(|cause| (cause, all.iter().map(|counters| counters.of(cause)).sum()));
        let came = sums.filter(|(_, sum)| *sum > 0);
        came.map(|(cause, sum)| (Some(("cause", cause.label())), Sample::Counter(sum))).collect()
    }
}

/// Protocol of a client connection, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ClientProtocol {
    Json,
    MessagePack,
    /// The protocol of Blazor circuits.
    BlazorPack,
    /// No hub protocol: a raw endpoint.
    Raw,
}

impl ClientProtocol {
    /// All protocols with their labels.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::Json, "json"),
        (Self::MessagePack, "messagepack"),
        (Self::BlazorPack, "blazorpack"),
        (Self::Raw, "raw"),
    ];

    /// Label used in metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        Self::ALL.iter().find(|(protocol, _)| *protocol == self).map_or("unknown", |(_, label)| label)
    }
}

metered! {
    /// Counters of client connections by transport and protocol.
    pub(crate) struct ConnectionCounters {
        #[metric("trunkline_client_connections_opened_total", "Client connections opened.")]
        pub opened: Counter,
        #[metric("trunkline_client_connections", "Client connections that are open.")]
        pub open: Gauge,
    }
}

metered! {
    /// Counters of one hub, written by one shard.
    pub(crate) struct HubCounters {
        /// Open client connections that closed, by cause.
        pub closed: CauseCounters,
        #[metric(
            "trunkline_client_connections_refused_total",
            "Client connections that ended before their hub handshake was complete, by cause."
        )]
        pub refused: CauseCounters,
        #[metric("trunkline_client_messages_total", "Messages received from clients.")]
        pub messages_up: Counter,
        #[metric(
            "trunkline_client_bytes_total",
            "Bytes of messages from and to clients, without the framing of transports.",
            direction = "up"
        )]
        pub bytes_up: Counter,
        /// One message of an app server, written to one client.
        #[metric("trunkline_deliveries_total", "Messages of app servers delivered to clients.")]
        pub deliveries: Counter,
        #[metric("trunkline_call_errors_total", "Calls of clients that their app server answered with an error.")]
        pub call_errors: Counter,
        #[metric("trunkline_client_bytes_total", direction = "down")]
        pub bytes_down: Counter,
        #[metric(
            "trunkline_compression_bytes_total",
            "Bytes of frames with messages to clients with compression: before it, and as sent.",
            stage = "plain"
        )]
        pub compression_plain: Counter,
        #[metric("trunkline_compression_bytes_total", stage = "sent")]
        pub compression_sent: Counter,
        connections: [[ConnectionCounters; ClientProtocol::ALL.len()]; Transport::ALL.len()],
    }
}

impl HubCounters {
    pub(crate) fn opened(&self) -> u64 {
        self.connections.as_flattened().iter().map(|connections| connections.opened.get()).sum()
    }

    pub(crate) fn open(&self) -> u64 {
        self.connections.as_flattened().iter().map(|connections| connections.open.get()).sum()
    }

    pub(crate) fn connections(&self, transport: Transport, protocol: ClientProtocol) -> &ConnectionCounters {
        let [web_sockets, events, polling] = &self.connections;
        let [json, message_pack, blazor_pack, raw] = match transport {
            Transport::WebSockets => web_sockets,
            Transport::ServerSentEvents => events,
            Transport::LongPolling => polling,
        };
        match protocol {
            ClientProtocol::Json => json,
            ClientProtocol::MessagePack => message_pack,
            ClientProtocol::BlazorPack => blazor_pack,
            ClientProtocol::Raw => raw,
        }
    }
}

/// Maximum number of labels per kind, including former rules. Each is a line in every scrape.
const LABELS_MAX: usize = 200;

/// Label for all further rules.
const OTHER: &str = "other";

/// Counters by label, bounded in number.
#[derive(Debug, Default)]
pub(crate) struct LabelledCounters<C>(Mutex<BTreeMap<Arc<str>, Arc<C>>>);

impl<C: Default> LabelledCounters<C> {
    /// Returns the counters of a label, creating them if necessary.
    pub(crate) fn of(&self, label: &Arc<str>) -> Arc<C> {
        let mut by_label = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_label.get(label) {
            return known.clone();
        }
        let label = if by_label.len() < LABELS_MAX { label.clone() } else { OTHER.into() };
        by_label.entry(label).or_default().clone()
    }

    pub(crate) fn all(&self) -> Vec<(Arc<str>, Arc<C>)> {
        let by_label = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        by_label.iter().map(|(label, counters)| (label.clone(), counters.clone())).collect()
    }
}

metered! {
    /// Counters of a mirror's copies.
    pub(crate) struct MirrorCounters {
        #[metric(
            "trunkline_mirror_messages_total",
            "Messages copied for a mirror, by outcome of the copy.",
            outcome = "sent"
        )]
        pub sent: Counter,
        /// The mirror was full or gone.
        #[metric("trunkline_mirror_messages_total", outcome = "dropped")]
        pub dropped: Counter,
    }
}

/// Counters of the operator's rules, by label.
#[derive(Debug, Default)]
pub(crate) struct RuleCounters {
    /// Connections and requests matching a route.
    pub routes: LabelledCounters<Counter>,
    pub mirrors: LabelledCounters<MirrorCounters>,
    /// Calls refused by method rules.
    pub methods: LabelledCounters<Counter>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_keeps_its_counter_and_those_beyond_the_bound_share_one() {
        let counters = LabelledCounters::<Counter>::default();
        for at in 0..LABELS_MAX + 2 {
            counters.of(&at.to_string().into()).increment();
        }
        counters.of(&"0".into()).increment();
        let all = counters.all();
        assert_eq!(all.len(), LABELS_MAX + 1);
        let count =
            |label: &str| all.iter().filter(|(known, _)| **known == *label).map(|(_, of)| of.get()).sum::<u64>();
        assert_eq!((count("0"), count("1"), count(OTHER), count("201")), (2, 1, 2, 0));
    }
}
