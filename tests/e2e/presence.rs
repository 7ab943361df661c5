//! Presence: users at several proxies are reported once, and queries about all users delay no client.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::time::sleep;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{Fixture, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;

/// Time limit for reporting the users of a killed proxy as offline, on a busy machine. Without presence it took 20 s.
const OFFLINE_WITHIN: Duration = Duration::from_secs(12);

/// Time limit for the app to see a killed proxy's clients disconnect, on a busy machine. Before nodes reported crashes,
/// it took 20 s.
const DISCONNECTED_WITHIN: Duration = Duration::from_secs(12);

/// Time for which a proxy is frozen, shorter than `--resume-window`.
const FROZEN_FOR: Duration = Duration::from_secs(6);

/// Number of concurrently querying clients, and of queries by each.
const ASKING: usize = 50;
const QUESTIONS: usize = 40;

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

/// One app server, and two proxies that form a fleet.
async fn pair(fixture: &Fixture) -> Result<(AppServer, [Proxy; 2])> {
    let fleet = Fleet::new(fixture);
    let app = fleet.app(App::Moves).await?;
    let admins = [free_address()?, free_address()?];
    let urls = admins.each_ref().map(|admin| format!("http://{admin}"));
    let peers = ["--peers", urls[0].as_str(), "--peers", urls[1].as_str()];
    let start = |admin: &str| fleet.proxy_of(&free_address()?, admin, &[app.address()], &peers);
    let mut proxies = [start(&admins[0])?, start(&admins[1])?];
    for proxy in &mut proxies {
        proxy.ready().await?;
        until(async || Ok((proxy.metrics().await?.sum("trunkline_fleet_agree", &[]) == 1.0).then_some(()))).await?;
        until(async || {
            let ready = proxy.metrics().await?.sum("trunkline_fleet_nodes", &[("state", "ready")]);
            Ok((ready == 2.0).then_some(()))
        })
        .await?;
    }
    Ok((app, proxies))
}

#[test]
fn a_client_of_a_killed_proxy_has_disconnected_within_seconds_and_one_of_a_frozen_proxy_has_not() {
    run_test(async |fixture| {
        let (mut app, [frozen, mut doomed]) = pair(fixture).await?;
        let mut staying = RawClient::join(frozen.address(), "/moves").await?;
        let gone = RawClient::join(doomed.address(), "/moves").await?;
        app.process.wait_for_lines("connected ", 2).await?;
        frozen.process.signal(Signal::Freeze).await?;
        // sleep: longer than the report of a crash takes; there is no event for a frozen process
        sleep(FROZEN_FOR).await;
        frozen.process.signal(Signal::Thaw).await?;
        staying.call("Run", json!(["after"])).await?;
        assert!(app.process.lines_after("disconnected ").is_empty());

        let killed_at = Instant::now();
        doomed.process.kill().await?;
        app.process.wait_for_lines("disconnected ", 1).await?;
        let took = killed_at.elapsed();
        eprintln!("disconnected after {took:?}");
        ensure!(took < DISCONNECTED_WITHIN, "it took {took:?}");
        staying.call("Run", json!(["last"])).await?;
        assert_eq!(app.process.lines_after("disconnected ").len(), 1);
        drop(gone);
        Ok(())
    });
}

#[test]
fn presence_asked_by_everybody_at_once_is_answered_and_holds_nobody_up() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let (mut members, mut ids) = (Vec::new(), Vec::new());
        for proxy in &proxies {
            let mut member = RawClient::join(proxy.address(), "/bench").await?;
            member.call("Join", json!(["room"])).await?;
            let who = member.call("WhoAmI", json!([])).await?;
            ids.push(who["result"]["connectionId"].as_str().context("an id")?.to_owned());
            members.push(member);
        }
        ids.sort_unstable();
        let mut asking = Vec::new();
        for number in 0..ASKING {
            asking.push(RawClient::join(proxies[number % 2].address(), "/bench").await?);
        }
        let mut other = RawClient::join(proxies[0].address(), "/bench").await?;
        let sorted = &json!(ids);
        let storm = try_join_all(asking.iter_mut().map(|client| async move {
            for _ in 0..QUESTIONS {
                assert_eq!(client.call("GroupMembers", json!(["room"])).await?["result"], *sorted);
                assert_eq!(client.call("UserOnline", json!(["nobody"])).await?["result"], json!(false));
            }
            Ok::<_, anyhow::Error>(())
        }));
        let others = async {
            for number in 0..QUESTIONS {
                assert_eq!(other.call("Echo", json!([number])).await?["result"], json!(number));
            }
            Ok::<_, anyhow::Error>(())
        };
        let (asked, echoed) = tokio::join!(storm, others);
        asked?;
        echoed?;
        drop(members);
        Ok(())
    });
}
