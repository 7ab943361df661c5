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
use trunkline_tests::harness::scenario::{pairs, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

use functional_scene::{FunctionalCase, FunctionalScene};

/// Runs all cases over one transport, in each setting.
fn run_all_cases(transport: Transport) {
    run_test(async |fixture| {
        // These cases use no hub protocol, so one client kind suffices.
        let without_hub = connection::CASES.iter().map(|case| (case, &Kind::JsJson));
        let cases = with_kinds(hub_connection::CASES, transport).chain(without_hub);
        let with_tls = with_kinds(over_https::CASES, transport);
        let fleet = Fleet::new(fixture);
        let mut failed = Vec::new();
        let met = pairs(&Setting::EVERY, &cases.collect::<Vec<_>>());
        let met_with_tls = pairs(&Setting::WITH_TLS, &with_tls.collect::<Vec<_>>());
        for setting in Setting::EVERY {
            let test_servers = TestServers::start(&fleet, App::Functional, setting).await?;
            let agents = test_servers.agents(fixture);
            let here = met.iter().chain(&met_with_tls).filter(|(of, _)| *of == setting).flat_map(|(_, cases)| cases);
            for (index, &(case, &kind)) in here.filter(|(case, _)| case.over.contains(&transport)).enumerate() {
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

/// Cases with the clients for the hub protocols that the transport supports.
fn with_kinds(
    cases: &'static [FunctionalCase],
    transport: Transport,
) -> impl Iterator<Item = (&'static FunctionalCase, &'static Kind)> {
    let kinds: &[Kind] = if transport == Transport::ServerSentEvents { &[Kind::JsJson] } else { &Kind::JS };
    cases.iter().flat_map(move |case| kinds.iter().map(move |kind| (case, kind)))
}

#[test]
fn every_web_socket_case_passes() {
    run_all_cases(Transport::WebSockets);
}

#[test]
fn every_event_stream_case_passes() {
    run_all_cases(Transport::ServerSentEvents);
}

#[test]
fn every_long_polling_case_passes() {
    run_all_cases(Transport::LongPolling);
}
