#![forbid(unsafe_code)]
//! The driver of a link session, for both ends: what stands between [`Session`] and a socket.
//!
//! ```text
//!              ┌──────────────────────────── one end of a link ───────────────────────────┐
//!  senders ──► │ LinkOutbox (Session behind a lock) ──► LinkWriteLoop ──► LinkWriter ─┐    │
//!              │      ▲ acknowledgements, silence                                     socket ══ far end
//!  FrameSink ◄─│ LinkReadLoop (numbers, batches) ◄────────────────────── LinkReader ◄─┘    │
//!              └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The ends keep their policy: the proxy dials and routes frames to shards; the app server judges upgrades, keeps the
//! live session of each slot, and gives frames to its endpoints.
//!
//! Modules, lowest first:
//!
//! | module | contents |
//! |---|---|
//! | `clock` | milliseconds of a session as instants |
//! | `end` | why a socket or a session ended |
//! | `header` | offer and answer of an upgrade as HTTP headers |
//! | `websocket` | WebSocket libraries as a link sees them |
//! | `socket` | the two halves of a link, over a WebSocket or in memory |
//! | `handshake` | the first two frames |
//! | `outbox` | the send queue of a session, and who waits for room in it |
//! | `stop` | how a socket is ended from outside; ticks, and what the session decides by them |
//! | `reader` | frames in batches, numbered and counted as taken |
//! | `writer` | chunks, pings and acknowledgements |
//! | `move_queue` | moves of client connections, behind the sends that began before them |
//!
//! [`Session`]: trunkline_protocol::service::Session

mod clock;
mod end;
mod handshake;
mod header;
mod move_queue;
mod outbox;
mod reader;
mod socket;
mod stop;
#[cfg(test)]
mod tests;
mod websocket;
mod writer;

pub use clock::LinkClock;
pub use end::LinkEnd;
pub use handshake::{
    MigrationLevel, StatefulReconnects, answer_handshake, answer_handshake_if, request_handshake, request_handshake_for,
};
pub use header::{MalformedHeader, read_answer, read_capabilities, read_offer, write_answer, write_offer};
pub use move_queue::{ManySend, MoveQueue, TooManyMoves};
pub use outbox::{LinkOutbox, OutboxClosed, OutboxPolicy, Outgoing, TrySendError};
pub use reader::{FrameSink, LinkReadLoop};
pub use socket::{LinkReader, LinkSocket, LinkWriter, MemoryLink};
pub use stop::{SocketStop, StopReason, wait_for_verdict, window_passed};
pub use websocket::{LinkMessage, LinkWebSocket, ReceivedMessage};
pub use writer::LinkWriteLoop;
