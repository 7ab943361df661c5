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
//! The handshake is Noise (`NNpsk0`) with a secret made of the access key, one for each kind of far end. So each end
//! has proved to the other that it holds the key before either believes or tells anything, nothing that was shown to
//! one far end is of use at another, and whoever carries the bytes can't read or change them, not even who learns the
//! key later. Without a key there is nothing to reach: a hello that opens with no key costs a few hashes, and a hello
//! that was recorded is refused, or leads to a stream that its sender can't speak on.
//!
//! A hello says, sealed, which name was dialled. An end that knows its names refuses hellos for others, so a name that
//! leads to another holder of the key is noticed by that one.
//!
//! On the wire a channel is a WebSocket with binary messages, so that each load balancer and mesh lets it through that
//! lets WebSockets through.
//!
//! Modules, lowest first:
//!
//! | module | contents |
//! |---|---|
//! | `cipher` | what seals a record |
//! | `resolver` | the parts of Noise |
//! | `hello` | contents of a hello: its minute, and the name that was dialled |
//! | `handshake` | two texts that prove the key, one for each direction |
//! | `hello_table` | hellos that a port has taken, so that none is taken twice |
//! | `record` | sealed pieces, each a WebSocket message |
//! | `stream` | bytes through a channel, over any socket |
//! | `upgrade` | the HTTP exchange that a channel begins with, at both ends |
//! | `stagger` | dials to the addresses of one server |

mod cipher;
mod handshake;
mod hello;
mod hello_table;
mod record;
mod resolver;
mod stagger;
mod stream;
mod upgrade;

pub use handshake::HandshakeError;
pub use hello_table::HelloTable;
pub use stagger::dial_staggered;
pub use stream::ChannelStream;
pub use upgrade::{Accepted, Dialled, NOT_FRESH, OpenChannelError, RefusedUpgrade, accept, open};
