//! What is counted for one hub by one shard.

use trunkline_protocol::manifest::Transport;

use super::{Causes, Counter, Gauge};

/// What a client connection speaks, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// The JSON hub protocol.
    Json,
    /// The MessagePack hub protocol.
    MessagePack,
    /// No hub protocol: a raw endpoint.
    Raw,
}

impl Speech {
    /// All of them, with their labels.
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Json, "json"), (Self::MessagePack, "messagepack"), (Self::Raw, "raw")];

    /// The label in metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        Self::ALL.iter().find(|(speech, _)| *speech == self).map_or("unknown", |(_, label)| label)
    }
}

/// The client connections of one transport that speak alike.
#[derive(Debug, Default)]
pub(crate) struct Population {
    pub opened: Counter,
    pub open: Gauge,
}

/// What is counted for one hub. All of it is written by the shard alone.
#[derive(Debug, Default)]
pub(crate) struct HubCounters {
    /// Client connections that ended, by cause.
    pub closed: Causes,
    /// Those that never got past their hub handshake, by cause.
    pub refused: Causes,
    /// Messages that clients sent up.
    pub messages_up: Counter,
    /// Their bytes, without the framing of transports.
    pub bytes_up: Counter,
    /// Deliveries: one message of an app server given to one client.
    pub deliveries: Counter,
    /// Their bytes, without the framing of transports.
    pub bytes_down: Counter,
    populations: [[Population; Speech::ALL.len()]; Transport::ALL.len()],
}

impl HubCounters {
    /// Client connections opened so far.
    #[must_use]
    pub(crate) fn opened(&self) -> u64 {
        self.populations.as_flattened().iter().map(|population| population.opened.get()).sum()
    }

    /// The client connections of this transport that speak so.
    #[must_use]
    pub(crate) fn population(&self, transport: Transport, speech: Speech) -> &Population {
        let [web_sockets, events, polling] = &self.populations;
        let [json, message_pack, raw] = match transport {
            Transport::WebSockets => web_sockets,
            Transport::ServerSentEvents => events,
            Transport::LongPolling => polling,
        };
        match speech {
            Speech::Json => json,
            Speech::MessagePack => message_pack,
            Speech::Raw => raw,
        }
    }
}
