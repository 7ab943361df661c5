#![forbid(unsafe_code)]
//! Channels: authenticated, encrypted byte streams between two holders of a fleet's access key.
//!
//! ```text
//!  proxy                                                    app server, or another node
//!  GET /.trunkline/channel, upgrade, hello ───────────────► opens the hello with one of its keys; else 401
//!  opens the answer with the same key; else it hangs up ◄── 101, hello
//!  ════ records: WebSocket messages, each sealed ═════════  HTTP inside: manifest, links, negotiations, owner hops
//! ```
//!
//! The handshake is Noise (`NNpsk0`) with a secret derived from the access key for each kind of peer. Each end proves
//! that it holds the key before the other end trusts it or sends data. A hello for one kind of peer is invalid at
//! another. Intermediaries can't read or change the bytes, even if they obtain the key later. Without a key, a hello
//! costs a few hashes; if replayed, it is refused or opens a stream that its sender can't use.
//!
//! A hello contains the dialled name, sealed. An end with configured names refuses other names, and so detects a name
//! that leads to the wrong holder of the key.
//!
//! On the wire, a channel is a WebSocket with binary messages, which passes any load balancer or mesh with WebSockets.
//!
//! Modules, lowest first:
//!
//! | module | contents |
//! |---|---|
//! | `resolver` | cryptographic primitives for Noise, with the cipher for records |
//! | `handshake` | two texts that prove the key, one for each direction; the contents of a hello |
//! | `hello_table` | hellos that a port has accepted, so that each is accepted once |
//! | `record` | sealed pieces, each a WebSocket message |
//! | `stream` | byte stream through a channel, over any socket |
//! | `upgrade` | HTTP exchange that starts a channel, at both ends |
//! | `stagger` | dials to the addresses of one server |

mod handshake;
mod hello_table;
mod record;
mod resolver;
mod stagger;
mod stream;
mod upgrade;

pub use handshake::{HandshakeError, clock_difference};
pub use hello_table::HelloTable;
pub use stagger::dial_staggered;
pub use stream::ChannelStream;
pub use upgrade::{Accepted, Dialled, NOT_FRESH, OpenChannelError, RefusedUpgrade, accept, key_tag, open_channel};
