//! Raw endpoints: clients and the app exchange text and binary messages without a hub protocol.
//!
//! ```text
//!  link reader ──open──► task that runs the handler ──┬─ recv ◄── upload of its call ◄── data, close
//!                                                     └─ send ──► send link of the node
//! ```
//!
//! A raw endpoint is a hub without methods: connections, closes and reassignments work as in hubs. The handler is the
//! only call of a connection, and runs once. When it returns, the connection is closed, or handed over to another
//! app server, where a handler continues.

mod raw_client;
mod raw_connection;
mod raw_handler;
mod raw_message;

pub(crate) use raw_client::{HANDLER_CALL, RawClient};
pub use raw_connection::{RawConnection, RawHandle, RawSender};
pub use raw_handler::RawHandler;
pub(crate) use raw_handler::RawServe;
pub use raw_message::RawMessage;
