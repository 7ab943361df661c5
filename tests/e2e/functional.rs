//! The official functional tests with the official client: behind two proxies or embedded, with and without TLS.

mod connection;
mod functional_scene;
mod hub_connection;
mod inventory;
mod over_https;

use anyhow::{Context, ensure};
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::Kind;
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::test_servers::{Setting, TestServers};

use functional_scene::FunctionalScene;

/// Clients for the hub protocols that the transport supports.
fn kinds(transport: Transport) -> &'static [Kind] {
    if transport == Transport::ServerSentEvents { &[Kind::JsJson] } else { &Kind::JS }
}

/// Runs all cases over one transport. Returns the names of failed cases.
fn run_all_cases(setting: Setting, transport: Transport) {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let test_servers = TestServers::start(&fleet, App::Functional, setting).await?;
        let agents = test_servers.agents(fixture);
        let mut failed = Vec::new();
        let of_hubs = hub_connection::CASES.iter().map(|case| (case, kinds(transport)));
        // These cases use no hub protocol, so one client kind suffices.
        let without_hub = connection::CASES.iter().map(|case| (case, [Kind::JsJson].as_slice()));
        let with_tls = over_https::CASES.iter().map(|case| (case, kinds(transport)));
        let with_tls = with_tls.filter(|_| setting.has_tls());
        let all = of_hubs.chain(without_hub).chain(with_tls).filter(|(case, _)| case.over.contains(&transport));
        for (index, (case, kinds)) in all.enumerate() {
            for &kind in kinds {
                let scene = FunctionalScene { test_servers: &test_servers, agents: &agents, kind, transport, index };
                let outcome = (case.run_test)(scene).await;
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
    run_all_cases(Setting::TwoProxies, Transport::WebSockets);
}

#[test]
fn every_web_socket_case_passes_without_a_proxy() {
    run_all_cases(Setting::Embedded, Transport::WebSockets);
}

#[test]
fn every_web_socket_case_passes_with_tls() {
    run_all_cases(Setting::TwoProxiesWithTls, Transport::WebSockets);
}

#[test]
fn every_event_stream_case_passes_with_tls() {
    run_all_cases(Setting::TwoProxiesWithTls, Transport::ServerSentEvents);
}

#[test]
fn every_long_polling_case_passes_with_tls() {
    run_all_cases(Setting::TwoProxiesWithTls, Transport::LongPolling);
}

#[test]
fn every_web_socket_case_passes_with_tls_and_without_a_proxy() {
    run_all_cases(Setting::EmbeddedWithTls, Transport::WebSockets);
}

#[test]
fn every_event_stream_case_passes_with_tls_and_without_a_proxy() {
    run_all_cases(Setting::EmbeddedWithTls, Transport::ServerSentEvents);
}

#[test]
fn every_long_polling_case_passes_with_tls_and_without_a_proxy() {
    run_all_cases(Setting::EmbeddedWithTls, Transport::LongPolling);
}

#[test]
fn every_event_stream_case_passes_through_two_proxies() {
    run_all_cases(Setting::TwoProxies, Transport::ServerSentEvents);
}

#[test]
fn every_event_stream_case_passes_without_a_proxy() {
    run_all_cases(Setting::Embedded, Transport::ServerSentEvents);
}

#[test]
fn every_long_polling_case_passes_through_two_proxies() {
    run_all_cases(Setting::TwoProxies, Transport::LongPolling);
}

#[test]
fn every_long_polling_case_passes_without_a_proxy() {
    run_all_cases(Setting::Embedded, Transport::LongPolling);
}
