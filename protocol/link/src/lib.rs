#![forbid(unsafe_code)]
//! Driver of a link session for both ends: the layer between [`Session`] and a socket.
//!
//! ```text
//!              ┌──────────────────────────── one end of a link ───────────────────────────┐
//!  senders ──► │ LinkOutbox (Session behind a lock) ──► LinkWriteLoop ──► LinkWriter ─┐    │
//!              │      ▲ acknowledgements, silence                                     socket ══ peer
//!  FrameSink ◄─│ LinkReadLoop (numbers, batches) ◄────────────────────── LinkReader ◄─┘    │
//!              └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Policy stays with the ends: the proxy dials and routes frames to shards; the app server decides about upgrades,
//! keeps each slot's live session, and passes frames to its endpoints.
//!
//! Modules, lowest first:
//!
//! | module | contents |
//! |---|---|
//! | `end` | reasons for the end of a socket or session |
//! | `header` | offer and answer of an upgrade as HTTP headers |
//! | `socket` | abstraction of WebSocket libraries; the two halves of a link, over a WebSocket or in memory |
//! | `handshake` | the first two frames |
//! | `outbox` | send queue of a session, and its waiting senders |
//! | `stop` | session milliseconds as instants; stopping a socket from outside; ticks and timeouts of the session |
//! | `reader` | frames in batches, numbered and counted as taken |
//! | `writer` | chunks, pings and acknowledgements |
//! | `keeper` | keeps a session dialled, with back-off |
//! | `move_queue` | moves of client connections, queued after earlier sends |
//!
//! [`Session`]: trunkline_protocol::service::Session

mod end;
mod handshake;
mod header;
mod keeper;
mod move_queue;
mod outbox;
mod reader;
mod socket;
mod stop;
#[cfg(test)]
mod tests;
mod writer;

pub use end::LinkEnd;
pub use handshake::{
    MigrationLevel, StatefulReconnects, answer_handshake, answer_handshake_if, request_handshake, request_handshake_for,
};
pub use header::{MalformedHeader, read_answer, read_capabilities, read_offer, write_answer, write_offer};
pub use keeper::{Keeper, SessionDriver};
pub use move_queue::{ManySend, MoveQueue, TooManyMoves};
pub use outbox::{LinkOutbox, OutboxClosed, OutboxPolicy, Outgoing, TrySendError};
pub use reader::{FrameSink, LinkReadLoop};
pub use socket::{LinkMessage, LinkReader, LinkSocket, LinkWebSocket, LinkWriter, MemoryLink, ReceivedMessage};
pub use stop::{LinkClock, SocketStop, StopReason, wait_for_verdict, window_passed};
pub use writer::{LinkWriteLoop, WrittenPiece};
