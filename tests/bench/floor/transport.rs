//! Transports of receivers, and their connects.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use trunkline_generator::carrier::Carrier;
use trunkline_generator::negotiated;

/// Transport of all receivers except the first, which sends requests over a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// A WebSocket per client
    WebSockets,
    /// Server-sent events, compared with WebSockets
    ServerSentEvents,
    /// Long polls, compared with WebSockets
    LongPolling,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSockets => "web-sockets",
            Self::ServerSentEvents => "server-sent-events",
            Self::LongPolling => "long-polling",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::WebSockets => "WebSockets",
            Self::ServerSentEvents => "SSE",
            Self::LongPolling => "long polls",
        }
    }

    /// Connects a client with negotiation.
    pub(crate) fn connect(self, address: SocketAddr, hub: &str) -> Result<(TcpStream, Carrier)> {
        match self {
            Self::WebSockets => bail!("a WebSocket is not negotiated"),
            Self::ServerSentEvents => negotiated::by_event_stream(address, hub),
            Self::LongPolling => negotiated::by_long_poll(address, hub),
        }
    }
}
