//! Setting of a case, and the list of cases that a file has.

use std::pin::Pin;

use anyhow::Result;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, ClientBuilder, ConnectionBuilder, Kind};
use trunkline_tests::harness::test_servers::TestServers;

/// Setting of a case.
#[derive(Clone, Copy)]
pub(crate) struct FunctionalScene<'a> {
    pub(crate) test_servers: &'a TestServers,
    pub(super) agents: &'a Agents<'a>,
    pub(super) kind: Kind,
    pub(super) transport: Transport,
    /// Place of its first client.
    pub(super) seat: usize,
}

/// A case of the inventory.
pub(crate) struct FunctionalCase {
    pub(super) name: &'static str,
    /// The transports that it is played over.
    pub(super) over: &'static [Transport],
    pub(super) play: Play,
}

pub(super) type Play = for<'a> fn(FunctionalScene<'a>) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

pub(crate) const EVERY: &[Transport] = &Transport::ALL;
/// Transports on which the library counts the server's silence.
pub(crate) const COUNTING_SILENCE: &[Transport] = &[Transport::WebSockets, Transport::ServerSentEvents];
pub(crate) const WEB_SOCKETS: &[Transport] = &[Transport::WebSockets];
/// The library chooses: once is enough.
pub(crate) const CHOSEN: &[Transport] = &[Transport::LongPolling];
pub(crate) const LONG_POLLING: &[Transport] = &[Transport::LongPolling];

/// Lists the cases of a file, in its `CASES`.
macro_rules! cases {
    ($($over:ident: $($name:ident),+;)+) => {
        /// Every case of the inventory that is played.
        pub(crate) const CASES: &[FunctionalCase] =
            &[$($(FunctionalCase { name: stringify!($name), over: $over, play: |scene| Box::pin($name(scene)) }),+),+];
    };
}
pub(super) use cases;

impl<'a> FunctionalScene<'a> {
    pub(crate) fn client(&self) -> ClientBuilder<'a> {
        self.client_at("/testhub")
    }

    pub(crate) fn client_at(&self, path: &str) -> ClientBuilder<'a> {
        self.agents.client(self.kind, &self.test_servers.url(self.seat, path)).transport(self.transport)
    }

    /// A client that chooses its transport, at a hub that offers all but WebSockets.
    pub(crate) fn client_without_web_sockets(&self) -> ClientBuilder<'a> {
        self.agents.client(self.kind, &self.test_servers.url(self.seat, "/testhub-nowebsockets")).any_transport()
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn echo(&self) -> ConnectionBuilder<'a> {
        self.agents.connection(&self.test_servers.url(self.seat, "/echo")).transport(self.transport.name())
    }

    pub(crate) fn is_json(&self) -> bool {
        self.kind == Kind::JsJson
    }

    /// A URL at another proxy, where there is one.
    pub(crate) fn url_elsewhere(&self, path: &str) -> String {
        self.test_servers.url(self.seat + 1, path)
    }
}
