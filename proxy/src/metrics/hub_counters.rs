//! Counters of one hub on one shard.

use trunkline_protocol::manifest::Transport;

use super::{CauseCounters, ClientProtocol, Counter, Gauge};

/// Counters of the client connections of one transport and protocol.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCounters {
    pub opened: Counter,
    pub open: Gauge,
}

/// Counters of one hub, written by the shard alone.
#[derive(Debug, Default)]
pub(crate) struct HubCounters {
    /// Client connections that were open and closed, by cause.
    pub closed: CauseCounters,
    /// Client connections that got no further than their hub handshake, by cause.
    pub refused: CauseCounters,
    /// Messages that clients sent.
    pub messages_up: Counter,
    /// Bytes of these, without the framing of transports.
    pub bytes_up: Counter,
    /// Deliveries: one message of an app server, written to one client.
    pub deliveries: Counter,
    /// Bytes of these, without the framing of transports.
    pub bytes_down: Counter,
    connections: [[ConnectionCounters; ClientProtocol::ALL.len()]; Transport::ALL.len()],
}

impl HubCounters {
    /// Returns the number of client connections opened so far.
    #[must_use]
    pub(crate) fn opened(&self) -> u64 {
        self.connections.as_flattened().iter().map(|connections| connections.opened.get()).sum()
    }

    /// Returns the counters of the client connections of one transport and protocol.
    #[must_use]
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
