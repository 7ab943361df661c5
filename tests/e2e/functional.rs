//! The official functional tests, case by case, by the official client: behind two proxies and without any, with TLS
//! and without.

mod connection;
mod hub_connection;
mod inventory;
mod over_https;

use std::pin::Pin;

use anyhow::{Context, Result, ensure};
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, ClientBuilder, ConnectionBuilder, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::ground::{Ground, Setting};
use trunkline_tests::harness::scenario::play;

/// Setting of a case.
#[derive(Clone, Copy)]
pub(crate) struct FunctionalScene<'a> {
    pub(crate) ground: &'a Ground,
    agents: &'a Agents<'a>,
    kind: Kind,
    transport: Transport,
    /// Place of its first client.
    seat: usize,
}

/// A case of the inventory.
pub(crate) struct FunctionalCase {
    name: &'static str,
    /// The transports that it is played over.
    over: &'static [Transport],
    play: Play,
}

type Play = for<'a> fn(FunctionalScene<'a>) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// With each hub protocol that the transport can carry.
fn kinds(transport: Transport) -> &'static [Kind] {
    if transport == Transport::ServerSentEvents { &[Kind::JsJson] } else { &Kind::JS }
}

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
use cases;

impl<'a> FunctionalScene<'a> {
    pub(crate) fn client(&self) -> ClientBuilder<'a> {
        self.client_at("/testhub")
    }

    pub(crate) fn client_at(&self, path: &str) -> ClientBuilder<'a> {
        self.agents.client(self.kind, &self.ground.url(self.seat, path)).transport(self.transport)
    }

    /// A client that chooses its transport, at a hub that offers all but WebSockets.
    pub(crate) fn client_without_web_sockets(&self) -> ClientBuilder<'a> {
        self.agents.client(self.kind, &self.ground.url(self.seat, "/testhub-nowebsockets")).any_transport()
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn echo(&self) -> ConnectionBuilder<'a> {
        self.agents.connection(&self.ground.url(self.seat, "/echo")).transport(self.transport.name())
    }

    pub(crate) fn is_json(&self) -> bool {
        self.kind == Kind::JsJson
    }

    /// A URL at another proxy, where there is one.
    pub(crate) fn url_elsewhere(&self, path: &str) -> String {
        self.ground.url(self.seat + 1, path)
    }
}

/// Plays all of them over one transport, and tells the names of all that fail.
fn play_all_cases(setting: Setting, transport: Transport) {
    play(async |stage| {
        let fleet = Fleet::new(stage);
        let ground = Ground::start(&fleet, App::Functional, setting).await?;
        let agents = ground.agents(stage);
        let mut failed = Vec::new();
        let of_hubs = hub_connection::CASES.iter().map(|case| (case, kinds(transport)));
        // There is no hub protocol that they could be played with.
        let without_hub = connection::CASES.iter().map(|case| (case, [Kind::JsJson].as_slice()));
        let with_tls = over_https::CASES.iter().map(|case| (case, kinds(transport)));
        let with_tls = with_tls.filter(|_| setting.has_tls());
        let all = of_hubs.chain(without_hub).chain(with_tls).filter(|(case, _)| case.over.contains(&transport));
        for (seat, (case, kinds)) in all.enumerate() {
            for &kind in kinds {
                let scene = FunctionalScene { ground: &ground, agents: &agents, kind, transport, seat };
                let outcome = (case.play)(scene).await;
                let outcome = outcome.with_context(|| format!("{} with {kind:?}, {setting:?}", case.name));
                failed.extend(outcome.err().map(|error| format!("{error:#}")));
            }
        }
        ensure!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
        Ok(())
    });
}

#[test]
fn every_web_socket_case_passes_through_two_proxies() {
    play_all_cases(Setting::TwoProxies, Transport::WebSockets);
}

#[test]
fn every_web_socket_case_passes_without_a_proxy() {
    play_all_cases(Setting::Embedded, Transport::WebSockets);
}

#[test]
fn every_web_socket_case_passes_with_tls() {
    play_all_cases(Setting::TwoProxiesWithTls, Transport::WebSockets);
}

#[test]
fn every_event_stream_case_passes_with_tls() {
    play_all_cases(Setting::TwoProxiesWithTls, Transport::ServerSentEvents);
}

#[test]
fn every_long_polling_case_passes_with_tls() {
    play_all_cases(Setting::TwoProxiesWithTls, Transport::LongPolling);
}

#[test]
fn every_web_socket_case_passes_with_tls_and_without_a_proxy() {
    play_all_cases(Setting::EmbeddedWithTls, Transport::WebSockets);
}

#[test]
fn every_event_stream_case_passes_with_tls_and_without_a_proxy() {
    play_all_cases(Setting::EmbeddedWithTls, Transport::ServerSentEvents);
}

#[test]
fn every_long_polling_case_passes_with_tls_and_without_a_proxy() {
    play_all_cases(Setting::EmbeddedWithTls, Transport::LongPolling);
}

#[test]
fn every_event_stream_case_passes_through_two_proxies() {
    play_all_cases(Setting::TwoProxies, Transport::ServerSentEvents);
}

#[test]
fn every_event_stream_case_passes_without_a_proxy() {
    play_all_cases(Setting::Embedded, Transport::ServerSentEvents);
}

#[test]
fn every_long_polling_case_passes_through_two_proxies() {
    play_all_cases(Setting::TwoProxies, Transport::LongPolling);
}

#[test]
fn every_long_polling_case_passes_without_a_proxy() {
    play_all_cases(Setting::Embedded, Transport::LongPolling);
}
