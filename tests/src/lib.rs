#![forbid(unsafe_code)]
//! The harness of the end-to-end tests: real processes, real clients, real sockets, all on loopback.
//!
//! ```text
//!  scenario ── starts ──► fleet: app servers and proxies, one process each
//!      └────── drives ──► agents: one process per client library, any number of clients in each
//!                    └──► raw clients in this process: bad input, and many idle connections
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`scenario`] | runs one test: its folder, its guard against hanging, the logs when it fails |
//! | [`process`] | one child process: log, signals, end |
//! | [`fleet`] | app servers and proxies |
//! | [`ground`] | where clients find hubs: behind two proxies, or at the app server itself |
//! | [`balancer`] | a load balancer without stickiness, request by request |
//! | [`shipped`] | HAProxy and nginx as `deploy/` configures them |
//! | [`fake_app`] | an app server that breaks the service protocol |
//! | [`other_version`] | an app server of another version, as far as proxies can see |
//! | [`demo`] | the demo, in a process group of its own |
//! | [`local`] | the whole layout, as `deploy/local` runs it |
//! | [`tools`] | programs that look at files, such as validators |
//! | [`driver`] | commands and replies as JSON lines, to a process of another language |
//! | [`client`] | clients of the official and other libraries, behind one face |
//! | [`browser`] | pages in headless Chromium |
//! | [`carried`] | a client of Server-Sent Events or long polling, request by request |
//! | [`raw`] | a client that sends just the bytes it is told to |
//! | [`http_client`] | single HTTP requests |
//! | [`issuer`] | keys of an issuer of access tokens, and a server that publishes them |
//! | [`metrics`] | what `/metrics` says |
//! | [`prometheus`] | Debian's Prometheus, scraping a fleet |
//! | [`sockets`] | established TCP connections, as the system counts them |
//! | [`tls`] | certificates, TLS by hand, and a TLS end in front of an app server |
//! | [`token`] | access tokens of users |
//! | [`mod@bench`] | what the benchmarks share |
//!
//! No test waits for a time to pass: all waits are for an event, and [`scenario`] bounds them.

pub mod balancer;
pub mod bench;
pub mod browser;
pub mod carried;
pub mod client;
pub mod demo;
pub mod driver;
pub mod fake_app;
pub mod fleet;
pub mod ground;
pub mod http_client;
pub mod issuer;
pub mod local;
pub mod metrics;
pub mod other_version;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod relay;
pub mod scenario;
pub mod shipped;
pub mod sockets;
pub mod tls;
pub mod token;
pub mod tools;
