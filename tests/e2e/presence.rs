//! Presence: users at several proxies are told once, and questions of everybody hold nobody up.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{Stage, play, until};
use trunkline_tests::harness::token;

/// Time in which the users of a killed proxy are told to be offline, on a busy machine; it took 20 s without presence.
const OFFLINE_WITHIN: Duration = Duration::from_secs(12);

/// Clients that all ask at once, and questions of each.
const ASKING: usize = 50;
const QUESTIONS: usize = 40;

/// Two app servers, and two proxies before both.
async fn mesh(stage: &Stage) -> Result<([AppServer; 2], [Proxy; 2])> {
    let fleet = Fleet::new(stage);
    let apps = [fleet.app(App::Members).await?, fleet.app(App::Members).await?];
    let upstreams = [&apps[0], &apps[1]];
    let proxies = [fleet.proxy_with(&upstreams, &[]).await?, fleet.proxy_with(&upstreams, &[]).await?];
    Ok((apps, proxies))
}

async fn user_at(agents: &Agents<'_>, kind: Kind, proxy: &Proxy, user: &str) -> Result<Client> {
    let token = token::of_user(ACCESS_KEY, user)?;
    agents.client(kind, &proxy.url("/present")).access_token(&token).open().await
}

/// Lines that hooks of both app servers have printed.
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
    play(async |stage| {
        let (apps, [mut doomed, lasting]) = mesh(stage).await?;
        let agents = Agents::new(stage);
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

#[test]
fn presence_asked_by_everybody_at_once_is_answered_and_holds_nobody_up() {
    play(async |stage| {
        let fleet = Fleet::new(stage);
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
