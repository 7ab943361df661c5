#![forbid(unsafe_code)]
//! Core of the load generators: thousands of SignalR clients, and measuring tools.
//!
//! The benchmarks `floor`, `compare`, `app_cost` and `capacity` and the load tester build on it and contain only their
//! policy. It uses neither product code nor an async runtime: separate codecs ensure that the product's encoder does
//! not check itself.
//!
//! | module | contents |
//! |---|---|
//! | [`frame`] | WebSocket frames, encoded as a client, decoded as sent by a server |
//! | [`upgrade`] | the HTTP upgrade to a WebSocket |
//! | [`message_pack`] | a MessagePack encoder for benchmark messages |
//! | [`frame_protocol`] | hub protocols, and the distinction of messages and keep-alives |
//! | [`welcome`] | the steps from an upgrade to an open hub connection |
//! | [`http_answer`] | HTTP/1.1 requests and responses |
//! | [`carrier`] | transports of messages: WebSockets, server-sent events, long polls |
//! | [`stream`] | nonblocking sockets, plain or with TLS |
//! | [`connect`] | blocking connects |
//! | [`negotiated`] | blocking connects over the HTTP transports |
//! | [`origin`] | client addresses that avoid reusing ports |
//! | [`cpu`], [`memory`] | CPU time and memory of a process |
//! | [`histogram`] | histogram of microseconds |
//! | [`done`] | completed units of work in a window, with latencies |
//! | [`chart`] | line charts as SVG |
//! | [`crowd`] | sockets of one thread, polled with naps |
//! | [`client`] | one nonblocking client |
//! | [`workload`] | work of a crowd in a window |
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
pub mod frame_protocol;
pub mod histogram;
pub mod http_answer;
pub mod idlers;
pub mod memory;
pub mod message_pack;
pub mod negotiated;
pub mod origin;
pub mod receivers;
pub mod residents;
pub mod stream;
pub mod upgrade;
pub mod visitors;
pub mod welcome;
pub mod workload;
