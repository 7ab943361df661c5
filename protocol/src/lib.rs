#![forbid(unsafe_code)]
//! The protocols of a SignalR proxy tier, as plain values and pure state machines.
//!
//! ```text
//!  client ── hub protocol (`hub`) ──► proxy ── service protocol (`service`) ──► app server
//!                                     proxy ── node messages (`fleet`) ──────► proxy
//! ```
//!
//! No module opens a socket, reads a clock or starts a task: bytes and time are inputs, bytes and events are outputs.
//! The only exception is [`development_key`], which both ends need and which reads a file.
//!
//! Modules, lowest first; a module never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | [`limits`] | all limits, with reasons |
//! | [`unix_time`] | timestamps in seconds or milliseconds since 1970 |
//! | [`cause`] | causes of ended and refused client connections |
//! | [`wire`] | names on the wire: paths, headers, claims, close codes |
//! | [`id`] | connection ids and other random names |
//! | [`host_pattern`] | host patterns of operators |
//! | [`pattern`] | patterns of names, with wildcards |
//! | [`json_text`] | JSON values that pass through without loss |
//! | [`trace_context`] | W3C trace context of a request or message |
//! | [`public_text`] | texts that must not be secrets: public keys, key sets, JSON |
//! | [`key`] | access keys and the subkeys derived from them |
//! | [`development_key`] | the key of this machine, for use without configuration |
//! | [`token`] | contents of sealed tokens: connection tokens, credentials of links, forward marks |
//! | [`access_token`] | signing and verifying access tokens of the fleet's users; their audiences |
//! | `message_pack` | bounded reading and compact writing of MessagePack values |
//! | `fields` | fields of MessagePack arrays: encoding by type, tables of layouts |
//! | [`hub`] | hub messages, their JSON and MessagePack encodings, framing, handshake, structural scan |
//! | [`manifest`] | an app server's hubs and their settings |
//! | [`negotiate`] | bodies of negotiate requests and responses, versions 0 and 1 |
//! | [`dial_in`] | connection strings and tokens of app servers that dial a service |
//! | [`service`] | service messages and their codec, frames of a link, link sessions |
//! | [`fleet`] | messages between nodes: greetings, node messages, interest, views |

pub mod access_token;
pub mod cause;
pub mod development_key;
pub mod dial_in;
mod fields;
pub mod fleet;
pub mod host_pattern;
pub mod hub;
pub mod id;
pub mod json_text;
pub mod key;
pub mod limits;
pub mod manifest;
mod message_pack;
pub mod negotiate;
pub mod pattern;
pub mod public_text;
pub mod service;
pub mod token;
pub mod trace_context;
pub mod unix_time;
pub mod wire;
