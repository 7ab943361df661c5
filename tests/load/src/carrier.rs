//! Carriers of a connection's bytes: one file for each transport, and one that two of them share.
//!
//! ```text
//!                       ┌─► web_socket:   one socket, frames both ways
//!  connection ─► Carrier├─► event_stream: a GET whose answer does not end ─┐
//!    ▲                  └─► long_poll:    one GET after the other ─────────┴─► upward: POSTs
//!    └─────────── Taker ◄────┘
//! ```
//!
//! An enum and no trait object: a message costs a branch, and nothing is boxed for it.

pub(crate) mod event_stream;
pub(crate) mod long_poll;
pub(crate) mod taker;
pub(crate) mod upward;
pub(crate) mod web_socket;

use std::time::Duration;

use crate::ended::Ended;
use event_stream::EventStream;
use long_poll::LongPoll;
use taker::Taker;
use web_socket::WebSocket;

/// The carrier of one connection.
#[derive(Debug)]
pub(crate) enum Carrier {
    WebSocket(WebSocket),
    EventStream(EventStream),
    LongPoll(LongPoll),
}

impl Carrier {
    /// Sends a hub message; what the server does not take now waits.
    pub(crate) fn put(&self, message: &[u8]) {
        match self {
            Self::WebSocket(carrier) => carrier.put(message),
            Self::EventStream(carrier) => carrier.upward.put(message),
            Self::LongPoll(carrier) => carrier.upward.put(message),
        }
    }

    /// Ends it in the transport's own way, behind what was put before.
    pub(crate) fn close(&self) {
        match self {
            Self::WebSocket(carrier) => carrier.close(),
            Self::EventStream(carrier) => carrier.upward.close(),
            Self::LongPoll(carrier) => carrier.upward.close(),
        }
    }

    /// Ends it by resetting its sockets.
    pub(crate) fn cut(&self) {
        match self {
            Self::WebSocket(carrier) => carrier.cut(),
            Self::EventStream(carrier) => carrier.upward.cut(),
            Self::LongPoll(carrier) => carrier.upward.cut(),
        }
    }

    /// Ends it with a cause, unless it has one.
    pub(crate) fn end_with(&self, cause: Ended) {
        match self {
            Self::WebSocket(carrier) => carrier.ending.tell(cause),
            Self::EventStream(carrier) => carrier.upward.ending.tell(cause),
            Self::LongPoll(carrier) => carrier.upward.ending.tell(cause),
        }
    }

    /// Keep-alive rules of a transport, like those of the official clients.
    pub(crate) fn vital_signs(&self) -> VitalSigns {
        match self {
            Self::WebSocket(_) | Self::EventStream(_) => VitalSigns { pings: true, silence_max: SERVER_TIMEOUT },
            Self::LongPoll(_) => VitalSigns { pings: false, silence_max: long_poll::POLL_MAX },
        }
    }

    /// Carries until the connection ends.
    pub(crate) async fn serve(&self, taker: &impl Taker) -> Ended {
        match self {
            Self::WebSocket(carrier) => carrier.serve(taker).await,
            // Boxed, because HTTP needs two kilobytes for it, which every WebSocket's task would have, too.
            Self::EventStream(carrier) => Box::pin(carrier.serve(taker)).await,
            Self::LongPoll(carrier) => Box::pin(carrier.serve(taker)).await,
        }
    }
}

/// A server that is silent for this long is gone, where it has to ping.
const SERVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Keep-alive rules of a transport.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VitalSigns {
    /// Whether the client pings.
    pub(crate) pings: bool,
    /// Time for which the server may be silent.
    pub(crate) silence_max: Duration,
}
