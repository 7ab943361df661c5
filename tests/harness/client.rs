//! Common API for clients of the official and other libraries.
//!
//! A scenario is written once and run with each [`Kind`]. Events of a client are read in order.

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
