//! Clients of the official library and of others, behind one face.
//!
//! A scenario is written once and played by each [`Kind`]. What a client tells is read in order.

mod agents;
mod answer;
mod connection;
mod kind;
mod library_client;
mod remote;
mod stream;

pub use agents::{Agents, CLIENTS_FOLDER};
pub use answer::ClientAnswer;
pub use connection::{Connection, ConnectionBuilder};
pub use kind::Kind;
pub use library_client::{Client, ClientBuilder, Sequence};
pub use stream::{Streamed, Upload};

pub use crate::harness::message::Message;
