//! Presence: users at several proxies are reported once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::scenario::{Fixture, run_test, until};
use trunkline_tests::harness::token;

/// Time limit for reporting the users of a killed proxy as offline, on a busy machine. Without presence it took 20 s.
const OFFLINE_WITHIN: Duration = Duration::from_secs(18);

/// Two app servers, each with links to both proxies.
async fn mesh(fixture: &Fixture) -> Result<([AppServer; 2], [Proxy; 2])> {
    let fleet = Fleet::new(fixture);
    let apps = [fleet.app(App::Members).await?, fleet.app(App::Members).await?];
    let upstreams = [&apps[0], &apps[1]];
    let proxies = [fleet.proxy_with(&upstreams, &[]).await?, fleet.proxy_with(&upstreams, &[]).await?];
    Ok((apps, proxies))
}

async fn user_at(agents: &Agents<'_>, kind: Kind, proxy: &Proxy, user: &str) -> Result<Client> {
    let token = token::of_user(ACCESS_KEY, user)?;
    agents.client(kind, &proxy.url("/present")).access_token(&token).open().await
}

/// Output lines of the hooks of both app servers.
fn told(apps: &[AppServer]) -> Vec<String> {
    let mut lines: Vec<_> = apps.iter().flat_map(|app| app.process.lines_after("told ")).collect();
    lines.sort();
    lines
}

async fn until_told(apps: &[AppServer], count: usize) -> Result<Vec<String>> {
    until(async || Ok(Some(told(apps)).filter(|told| told.len() >= count))).await
}

#[test]
fn two_tabs_at_two_proxies_are_one_user_and_a_killed_proxy_takes_its_users_with_it() {
    run_test(async |fixture| {
        let (apps, [mut doomed, lasting]) = mesh(fixture).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for (kind, user) in [(Kind::JsJson, "ann"), (Kind::PySignalRJson, "bob"), (Kind::JsMessagePack, "cid")] {
            clients.push(user_at(&agents, kind, &doomed, user).await?);
        }
        let mut tab = user_at(&agents, Kind::JsJson, &lasting, "ann").await?;
        assert_eq!(until_told(&apps, 3).await?, ["ann online", "bob online", "cid online"]);
        tab.invoke("Join", json!(["room"])).await?;
        assert_eq!(until_told(&apps, 4).await?[3], "room +1 -0 =1");
        let asked = |user: &'static str| tab.invoke("Online", json!([user]));
        assert_eq!(asked("ann").await?, json!([true, 2]));
        assert_eq!(asked("eve").await?, json!([false, 0]));

        let killed_at = Instant::now();
        doomed.process.kill().await?;
        let after = until_told(&apps, 6).await?;
        let took = killed_at.elapsed();
        ensure!(took < OFFLINE_WITHIN, "bob and cid were offline after {took:?}");
        let expected = ["ann online", "bob offline", "bob online", "cid offline", "cid online", "room +1 -0 =1"];
        assert_eq!(after, expected, "ann is at the other proxy still");
        tab.close().await?;
        let after: BTreeSet<_> = until_told(&apps, 8).await?.into_iter().collect();
        assert!(after.contains("ann offline") && after.contains("room +0 -1 =0"), "{after:?}");
        Ok(())
    });
}
