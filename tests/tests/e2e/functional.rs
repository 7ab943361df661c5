//! The official functional tests, case by case, by the official client: behind two proxies and without any.

mod hub_connection;
mod inventory;

use std::pin::Pin;

use anyhow::{Context, Result, ensure};
use trunkline_tests::client::{Agents, ClientBuilder, Kind};
use trunkline_tests::fleet::{App, Fleet};
use trunkline_tests::ground::{Ground, Setting};
use trunkline_tests::scenario::play;

use hub_connection::CASES;

/// What a case is played with.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) ground: &'a Ground,
    agents: &'a Agents<'a>,
    kind: Kind,
    /// Where its first client sits.
    seat: usize,
}

/// A case of the inventory, by its name.
pub(crate) type Case = (&'static str, for<'a> fn(Scene<'a>) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>);

impl<'a> Scene<'a> {
    pub(crate) fn client(&self) -> ClientBuilder<'a> {
        self.client_at("/testhub")
    }

    pub(crate) fn client_at(&self, path: &str) -> ClientBuilder<'a> {
        self.agents.client(self.kind, &self.ground.url(self.seat, path))
    }

    pub(crate) fn is_json(&self) -> bool {
        self.kind == Kind::JsJson
    }

    /// A URL at another proxy, where there is one.
    pub(crate) fn url_elsewhere(&self, path: &str) -> String {
        self.ground.url(self.seat + 1, path)
    }
}

/// Plays all of them, and tells the names of all that fail.
fn play_all_cases(setting: Setting) {
    play(async |stage| {
        let fleet = Fleet::new(stage);
        let ground = Ground::start(&fleet, App::Functional, setting).await?;
        let agents = Agents::new(stage);
        let mut failed = Vec::new();
        for (seat, (name, case)) in CASES.iter().enumerate() {
            for kind in Kind::JS {
                let scene = Scene { ground: &ground, agents: &agents, kind, seat };
                let outcome = case(scene).await.with_context(|| format!("{name} with {kind:?}, {setting:?}"));
                failed.extend(outcome.err().map(|error| format!("{error:#}")));
            }
        }
        ensure!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
        Ok(())
    });
}

#[test]
fn every_web_socket_case_passes_through_two_proxies() {
    play_all_cases(Setting::TwoProxies);
}

#[test]
fn every_web_socket_case_passes_without_a_proxy() {
    play_all_cases(Setting::Embedded);
}
