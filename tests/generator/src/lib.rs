#![forbid(unsafe_code)]
//! Generator core: SignalR clients by the thousand, and what they are measured with.
//!
//! The benchmarks `floor`, `compare`, `app_cost` and `capacity` and the load tester build on it and keep only their
//! policy. Nothing of the product and no runtime takes part in the measuring: the codecs here are their own, so that
//! the product's encoder is not its own judge.
//!
//! | module | what it holds |
//! |---|---|
//! | [`frame`] | WebSocket frames, written as a client, read as a server sends them |
//! | [`upgrade`] | the HTTP upgrade to a WebSocket |
//! | [`message_pack`] | an encoder for the MessagePack that benchmarks send |
//! | [`speech`] | how clients tell messages from keep-alives; the hub protocols |
//! | [`welcome`] | the steps from an upgrade to an open hub connection |
//! | [`http_answer`] | HTTP/1.1 requests, and answers to them |
//! | [`carrier`] | transports that bring messages: WebSockets, server-sent events, long polls |
//! | [`stream`] | nonblocking sockets, plain or with TLS |
//! | [`connect`] | blocking connects |
//! | [`negotiated`] | blocking connects over the HTTP transports |
//! | [`origin`] | addresses that clients come from, so that no port is used twice |
//! | [`cpu`], [`memory`] | CPU time and memory of a process |
//! | [`histogram`] | histogram of microseconds |
//! | [`done`] | units of work done in a window, with their latencies |
//! | [`chart`] | line charts as SVG |
//! | [`crowd`] | a thread's sockets, polled with naps |
//! | [`client`] | one nonblocking client |
//! | [`play`] | what a crowd does in a window |
//! | [`receivers`], [`callers`], [`idlers`], [`visitors`], [`residents`] | the kinds of crowds |

pub mod callers;
pub mod carrier;
pub mod chart;
pub mod client;
pub mod connect;
pub mod cpu;
pub mod crowd;
pub mod done;
pub mod frame;
pub mod histogram;
pub mod http_answer;
pub mod idlers;
pub mod memory;
pub mod message_pack;
pub mod negotiated;
pub mod origin;
pub mod play;
pub mod receivers;
pub mod residents;
pub mod speech;
pub mod stream;
pub mod upgrade;
pub mod visitors;
pub mod welcome;
