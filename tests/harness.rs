//! Harness of the tests: starts processes, controls clients, reads sockets and metrics.
//!
//! | module | contents |
//! |---|---|
//! | `test_permit` | limit of parallel tests |
//! | [`scenario`] | runs one test, with a folder, a time limit, and logs on failure |
//! | [`command`] | output and end of a command of the tests |
//! | [`process`] | one child process: log, signals, end |
//! | [`sockets`] | established TCP connections, as counted by the system |
//! | [`http_client`] | single HTTP requests |
//! | [`token`] | access tokens of users |
//! | [`back_end`] | requests to the REST data plane |
//! | [`metrics`] | values of `/metrics` |
//! | [`tools`] | programs that check files, such as validators |
//! | [`driver`] | commands and replies as JSON lines, to a process of another language |
//! | [`fleet`] | app servers and proxies |
//! | [`balancer`] | a stateless load balancer: a rule selects the server of each request |
//! | [`shipped`] | HAProxy and nginx with the configuration of `deploy/` |
//! | [`demo`] | the demo, in its own process group |
//! | [`local`] | the whole layout, as started by `deploy/local` |
//! | [`tls`] | certificates, manual TLS connections, and a TLS endpoint in front of an app server |
//! | [`issuer`] | issuer of access tokens: keys, and a server that publishes them |
//! | [`relay`] | TCP relay that cuts, holds and releases connections |
//! | [`nats`] | NATS servers with JetStream |
//! | [`prometheus`] | Debian's Prometheus, which scrapes a fleet |
//! | [`raw`] | a client that sends exactly the given bytes |
//! | [`http_transport`] | a client of Server-Sent Events or long polling, without a library |
//! | [`collector`] | a scripted OpenTelemetry collector |
//! | [`message`] | a message of an app server, as a client library passes it to the app |
//! | [`dotnet`] | real ASP.NET Core apps and .NET clients with Azure's SDK |
//! | [`client`] | common API for clients of the official and other libraries |
//! | [`browser`] | pages in headless Chromium |
//! | [`test_servers`] | hubs behind two proxies, or directly at the app server |
//!
//! Tests wait for events, not for a fixed time; [`scenario`] limits all waits.

pub mod back_end;
pub mod balancer;
pub mod browser;
pub mod client;
pub mod collector;
pub mod command;
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
pub mod nats;
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
