#![forbid(unsafe_code)]
//! The two protocols of a SignalR proxy tier, as plain values and pure steps.
//!
//! ```text
//!  client ── hub protocol (`hub`) ──► proxy ── service protocol (`service`) ──► app server
//! ```
//!
//! Nothing here opens a socket, reads a clock or starts a task: bytes and the time come in, bytes and
//! events go out. The one exception is [`development_key`], which both ends need and which reads a file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wire`] | names on the wire: paths, headers, claims, close codes |
//! | [`unix_time`] | moments as seconds or milliseconds since 1970 |
//! | [`cause`] | why a client connection ended or was refused: the one list of causes |
//! | [`hub`] | hub messages, their JSON and MessagePack forms, framing, handshake, the structural scan |
//! | [`service`] | service messages and their codec, frames of a link, the session that counts them |
//! | [`negotiate`] | the bodies of a negotiate request and answer, versions 0 and 1 |
//! | [`token`] | sealed tokens: what a connection token and a link credential say, and how they are sealed |
//! | [`key`] | access keys and the subkeys made of them |
//! | [`development_key`] | the key of this machine, for use without any configuration |
//! | [`id`] | connection ids and other random names |
//! | [`manifest`] | what an app server tells a proxy about its hubs, and where it tells it |
//! | [`limits`] | every bound, with its reason |

pub mod cause;
pub mod development_key;
pub mod hub;
pub mod id;
pub mod key;
pub mod limits;
pub mod manifest;
mod message_pack;
pub mod negotiate;
pub mod service;
pub mod token;
pub mod unix_time;
pub mod wire;
