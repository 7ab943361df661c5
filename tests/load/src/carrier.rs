//! Transports of a connection: one file each, and one shared by two of them.
//!
//! ```text
//!                       ┌─► web_socket:   one socket, frames both ways
//!  connection ─► Carrier├─► event_stream: a GET with an endless response ─┐
//!    ▲                  └─► long_poll:    one GET after the other ────────┴─► upward: POSTs
//!    └─────────── Taker ◄────┘
//! ```
//!
//! An enum instead of a trait object: a message costs a branch and no allocation.

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

#[derive(Debug)]
pub(crate) enum Carrier {
    WebSocket(WebSocket),
    EventStream(EventStream),
    LongPoll(LongPoll),
}

impl Carrier {
    pub(crate) fn put(&self, message: &[u8]) {
        match self {
            Self::WebSocket(carrier) => carrier.put(message),
            Self::EventStream(carrier) => carrier.upward.put(message),
            Self::LongPoll(carrier) => carrier.upward.put(message),
        }
    }

    /// Ends the connection as usual for its transport, after all queued messages.
    pub(crate) fn close(&self) {
        match self {
            Self::WebSocket(carrier) => carrier.close(),
            Self::EventStream(carrier) => carrier.upward.close(),
            Self::LongPoll(carrier) => carrier.upward.close(),
        }
    }

    /// Ends the connection by resetting its sockets.
    pub(crate) fn cut(&self) {
        match self {
            Self::WebSocket(carrier) => carrier.cut(),
            Self::EventStream(carrier) => carrier.upward.cut(),
            Self::LongPoll(carrier) => carrier.upward.cut(),
        }
    }

    /// Ends the connection with a cause, unless one is set.
    pub(crate) fn end_with(&self, cause: Ended) {
        match self {
            Self::WebSocket(carrier) => carrier.ending.notify(cause),
            Self::EventStream(carrier) => carrier.upward.ending.notify(cause),
            Self::LongPoll(carrier) => carrier.upward.ending.notify(cause),
        }
    }

    /// Keep-alive rules of a transport, like the official clients'.
    pub(crate) fn vital_signs(&self) -> VitalSigns {
        match self {
            Self::WebSocket(_) | Self::EventStream(_) => VitalSigns { pings: true, silence_max: SERVER_TIMEOUT },
            Self::LongPoll(_) => VitalSigns { pings: false, silence_max: long_poll::POLL_MAX },
        }
    }

    /// Runs the transport until the connection ends.
    pub(crate) async fn serve(&self, taker: &impl Taker) -> Ended {
        match self {
            Self::WebSocket(carrier) => carrier.serve(taker).await,
            // Boxed, because HTTP needs two kilobytes here, which would also enlarge every WebSocket's task.
            Self::EventStream(carrier) => Box::pin(carrier.serve(taker)).await,
            Self::LongPoll(carrier) => Box::pin(carrier.serve(taker)).await,
        }
    }
}

/// Silence after which a server that should ping is considered gone.
const SERVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Keep-alive rules of a transport.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VitalSigns {
    pub(crate) pings: bool,
    /// Maximum silence of the server.
    pub(crate) silence_max: Duration,
}
