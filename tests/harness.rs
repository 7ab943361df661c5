//! Harness of the tests: starts processes, drives clients, looks at sockets and metrics.
//!
//! | module | what it holds |
//! |---|---|
//! | [`scenario`] | runs one test: its folder, its guard against hanging, the logs when it fails |
//! | `test_permit` | how many tests run beside each other |
//! | [`process`] | one child process: log, signals, end |
//! | [`sockets`] | established TCP connections, as the system counts them |
//! | [`http_client`] | single HTTP requests |
//! | [`back_end`] | requests to the REST data plane |
//! | [`metrics`] | what `/metrics` says |
//! | [`token`] | access tokens of users |
//! | [`tools`] | programs that look at files, such as validators |
//! | [`driver`] | commands and replies as JSON lines, to a process of another language |
//! | [`fleet`] | app servers and proxies |
//! | [`test_servers`] | where clients find hubs: behind two proxies, or at the app server itself |
//! | [`balancer`] | a load balancer without stickiness, request by request |
//! | [`shipped`] | HAProxy and nginx as `deploy/` configures them |
//! | [`demo`] | the demo, in a process group of its own |
//! | [`local`] | the whole layout, as `deploy/local` runs it |
//! | [`issuer`] | keys of an issuer of access tokens, and a server that publishes them |
//! | [`tls`] | certificates, TLS by hand, and a TLS end in front of an app server |
//! | [`relay`] | a relay of TCP connections that cuts, holds and releases them |
//! | [`prometheus`] | Debian's Prometheus, scraping a fleet |
//! | [`raw`] | a client that sends just the bytes it is told to |
//! | [`http_transport`] | a client of Server-Sent Events or long polling, request by request |
//! | [`collector`] | a scripted OpenTelemetry collector |
//! | [`message`] | a message of an app server, as a client library hands it to the app |
//! | [`client`] | clients of the official and other libraries, behind one face |
//! | [`browser`] | pages in headless Chromium |
//! | [`dotnet`] | real ASP.NET Core apps and .NET clients on Azure's SDK |
//!
//! No test waits for a time to pass: all waits are for an event, and [`scenario`] bounds them.

pub mod back_end;
pub mod balancer;
pub mod browser;
pub mod client;
pub mod collector;
pub mod demo;
pub mod dotnet;
pub mod driver;
pub mod fleet;
pub mod http_client;
pub mod http_transport;
pub mod issuer;
pub mod local;
pub mod message;
pub mod metrics;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod relay;
pub mod scenario;
pub mod shipped;
pub mod sockets;
mod test_permit;
pub mod test_servers;
pub mod tls;
pub mod token;
pub mod tools;
