//! Environment of a case, and the list of a file's cases.

use std::pin::Pin;

use anyhow::Result;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, ClientBuilder, ConnectionBuilder, Kind};
use trunkline_tests::harness::test_servers::TestServers;

#[derive(Clone, Copy)]
pub(crate) struct FunctionalScene<'a> {
    pub(crate) test_servers: &'a TestServers,
    pub(super) agents: &'a Agents<'a>,
    pub(super) kind: Kind,
    pub(super) transport: Transport,
    /// Index of its first client.
    pub(super) index: usize,
}

pub(crate) struct FunctionalCase {
    pub(super) name: &'static str,
    /// Transports of the case.
    pub(super) over: &'static [Transport],
    pub(super) run_test: Play,
}

pub(super) type Play = for<'a> fn(FunctionalScene<'a>) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

pub(crate) const EVERY: &[Transport] = &Transport::ALL;
/// Transports for which the library has a server timeout.
pub(crate) const COUNTING_SILENCE: &[Transport] = &[Transport::WebSockets, Transport::ServerSentEvents];
pub(crate) const WEB_SOCKETS: &[Transport] = &[Transport::WebSockets];
/// The library chooses the transport, so one run suffices.
pub(crate) const CHOSEN: &[Transport] = &[Transport::LongPolling];
pub(crate) const LONG_POLLING: &[Transport] = &[Transport::LongPolling];

/// Defines `CASES` with the cases of a file.
macro_rules! cases {
    ($($over:ident: $($name:ident),+;)+) => {
        /// All cases of the inventory.
        pub(crate) const CASES: &[FunctionalCase] =
            &[$($(FunctionalCase { name: stringify!($name), over: $over, run_test: |scene| Box::pin($name(scene)) }),+),+];
    };
}
pub(super) use cases;

impl<'a> FunctionalScene<'a> {
    pub(crate) fn client(&self) -> ClientBuilder<'a> {
        self.client_at("/testhub")
    }

    pub(crate) fn client_at(&self, path: &str) -> ClientBuilder<'a> {
        self.agents.client(self.kind, &self.test_servers.url(self.index, path)).transport(self.transport)
    }

    /// Client that chooses its transport, at a hub that offers all except WebSockets.
    pub(crate) fn client_without_web_sockets(&self) -> ClientBuilder<'a> {
        self.agents.client(self.kind, &self.test_servers.url(self.index, "/testhub-nowebsockets")).any_transport()
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn echo(&self) -> ConnectionBuilder<'a> {
        self.agents.connection(&self.test_servers.url(self.index, "/echo")).transport(self.transport.name())
    }

    pub(crate) fn is_json(&self) -> bool {
        self.kind == Kind::JsJson
    }

    /// URL at another proxy, if there is one.
    pub(crate) fn url_elsewhere(&self, path: &str) -> String {
        self.test_servers.url(self.index + 1, path)
    }
}
