//! App servers start and stop: clients stay connected, and only calls in progress fail.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy, stop};
use trunkline_tests::harness::http_client;
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{Fixture, run_test, until};

const GROUP: &str = "room";
const HUB: &str = "/moves";

const CALL_INTERVAL: Duration = Duration::from_millis(50);

/// Two app servers, each with links to both proxies.
async fn mesh(fixture: &Fixture, arguments: &[&str]) -> Result<([AppServer; 2], [Proxy; 2])> {
    let fleet = Fleet::new(fixture);
    let apps = [fleet.app_with(App::Moves, arguments).await?, fleet.app_with(App::Moves, arguments).await?];
    let upstreams = [&apps[0], &apps[1]];
    let proxies = [fleet.proxy_with(&upstreams, &[]).await?, fleet.proxy_with(&upstreams, &[]).await?];
    Ok((apps, proxies))
}

/// Clients of all kinds at both proxies, in one group, each with a name stored in its items.
async fn crowd(agents: &Agents<'_>, proxies: &[Proxy]) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for kind in Kind::ALL {
        for proxy in proxies {
            // Proxies choose app servers in turn, so both app servers get clients of each kind.
            for _ in 0..2 {
                let client = agents.client(kind, &proxy.url(HUB)).subscribe(&["Number"]).open().await?;
                client.invoke("Join", json!([GROUP])).await?;
                client.invoke("Remember", json!([format!("name {}", clients.len())])).await?;
                clients.push(client);
            }
        }
    }
    Ok(clients)
}

/// App server instance and connection id, as the app server sees them.
async fn who(client: &Client) -> Result<(String, String)> {
    let seen = client.invoke("Who", json!([])).await?;
    let text = |place: usize| Ok::<_, anyhow::Error>(seen[place].as_str().context("a text")?.to_owned());
    Ok((text(0)?, text(1)?))
}

async fn all_who(clients: &[Client]) -> Result<Vec<(String, String)>> {
    join_all(clients.iter().map(who)).await.into_iter().collect()
}

/// Checks that each client receives all numbers of `sender`, in order.
async fn assert_group_delivers(clients: &mut [Client], sender: usize, to: u64) -> Result<()> {
    clients[sender].invoke("Count", json!([GROUP, to])).await?;
    for client in clients {
        for number in 0..to {
            assert_eq!(client.expect("Number").await?, [json!(number)]);
        }
    }
    Ok(())
}

fn ids(processes: &[&Process], start: &str) -> BTreeSet<String> {
    let lines = processes.iter().flat_map(|process| process.lines_after(start));
    lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// Waits until an app server logs this call, and returns its index.
async fn place_of(apps: &[AppServer], tag: &str) -> Result<usize> {
    let has_run = |app: &AppServer| app.process.lines_after("ran ").iter().any(|ran| ran == tag);
    until(async || Ok(apps.iter().position(has_run))).await
}

fn ran(processes: &[&Process]) -> Vec<String> {
    let mut tags: Vec<_> = processes.iter().flat_map(|process| process.lines_after("ran ")).collect();
    tags.sort();
    tags
}

#[test]
fn a_killed_app_server_costs_its_clients_their_pending_calls_and_nothing_else() {
    run_test(async |fixture| {
        let (mut apps, proxies) = mesh(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = crowd(&agents, &proxies).await?;
        let before = all_who(&clients).await?;
        let doomed = before[0].0.clone();
        let at_doomed: Vec<_> = (0..clients.len()).filter(|&client| before[client].0 == doomed).collect();
        let survivor = (0..clients.len()).find(|client| !at_doomed.contains(client)).context("clients of both")?;
        ensure!(at_doomed.len() == clients.len() / 2, "{} of {} are there", at_doomed.len(), clients.len());
        clients[0].invoke("Run", json!(["finds it"])).await?;
        let doomed_app = place_of(&apps, "finds it").await?;

        let pending = at_doomed.iter().map(|&client| {
            let client = &clients[client];
            async move { client.call("Pass", json!([format!("pending {}", who(client).await?.1)])).await }
        });
        let killing = async {
            apps[doomed_app].process.wait_for_lines("ran pending", at_doomed.len()).await?;
            apps[doomed_app].process.kill().await
        };
        let (results, killed) = tokio::join!(join_all(pending), killing);
        killed?;
        for result in results {
            let error = result?.err().context("a pending call fails")?;
            assert!(error.contains("app server that ran this call is gone"), "{error}");
        }

        let after = all_who(&clients).await?;
        let one: BTreeSet<_> = after.iter().map(|(instance, _)| instance).collect();
        assert_eq!(one.len(), 1, "all are at one app server");
        assert!(!one.contains(&doomed));
        assert_eq!(
            before.iter().map(|(_, id)| id).collect::<Vec<_>>(),
            after.iter().map(|(_, id)| id).collect::<Vec<_>>()
        );
        assert_group_delivers(&mut clients, survivor, 100).await?;
        assert_group_delivers(&mut clients, at_doomed[0], 100).await?;

        apps[1 - doomed_app].process.wait_for_lines("rehomed ", at_doomed.len()).await?;
        let other = &apps[1 - doomed_app].process;
        let moved: BTreeSet<_> = at_doomed.iter().map(|&client| before[client].1.clone()).collect();
        assert_eq!(ids(&[other], "rehomed "), moved);
        assert_eq!(other.lines_after("rehomed ").len(), moved.len(), "once each");
        assert!(other.lines_after("disconnected ").is_empty());
        assert!(other.lines_after("rehomed ").iter().all(|line| line.contains(&doomed) && line.ends_with("nothing")));
        let ran = ran(&[other, &apps[doomed_app].process]);
        assert_eq!(ran.len(), ran.iter().collect::<BTreeSet<_>>().len(), "nothing runs twice: {ran:?}");
        Ok(())
    });
}

#[test]
fn under_traffic_each_call_runs_at_most_once_and_has_one_outcome() {
    run_test(async |fixture| {
        let (mut apps, proxies) = mesh(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let clients = crowd(&agents, &proxies).await?;
        let calling = clients.iter().enumerate().map(|(place, client)| async move {
            let mut outcomes = Vec::new();
            for number in 0..100 {
                let tag = format!("{place}-{number}");
                outcomes.push((tag.clone(), client.call("Run", json!([tag])).await?));
            }
            Ok::<_, anyhow::Error>(outcomes)
        });
        let killing = async {
            apps[0].process.wait_for_lines("ran ", 100).await?;
            apps[0].process.kill().await
        };
        let (outcomes, killed) = tokio::join!(join_all(calling), killing);
        killed?;
        let outcomes: Vec<Vec<_>> = outcomes.into_iter().collect::<Result<_>>()?;
        let answered: BTreeSet<_> =
            outcomes.iter().flatten().filter(|(_, outcome)| outcome.is_ok()).map(|(tag, _)| tag.clone()).collect();
        // Answered calls have run; their log lines may still be in flight.
        let ran = until(async || {
            let ran = ran(&[&apps[0].process, &apps[1].process]);
            Ok(answered.iter().all(|tag| ran.contains(tag)).then_some(ran))
        })
        .await?;
        let once: BTreeSet<_> = ran.iter().cloned().collect();
        assert_eq!(ran.len(), once.len(), "nothing runs twice");
        for outcomes in outcomes {
            assert!(outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count() <= 1, "one call was pending");
            for (tag, outcome) in outcomes {
                match outcome {
                    Ok(result) => assert_eq!(result, json!(tag)),
                    Err(error) => assert!(error.contains("is gone"), "{tag}: {error}"),
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_stopped_app_server_hands_its_clients_over_with_their_calls_done() {
    run_test(async |fixture| {
        let (mut apps, proxies) = mesh(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = crowd(&agents, &proxies).await?;
        let before = all_who(&clients).await?;
        clients[0].invoke("Run", json!(["finds it"])).await?;
        let stopped = place_of(&apps, "finds it").await?;
        let stays = 1 - stopped;
        let address = apps[stopped].address().to_owned();
        let calling = clients.iter().enumerate().map(|(place, client)| async move {
            let mut results = Vec::new();
            if place == 0 {
                results.push((json!("passes"), client.call("Pass", json!(["passes"])).await?));
            }
            for number in 0..50 {
                let tag = json!(format!("{place}-{number}"));
                results.push((tag.clone(), client.call("Run", json!([tag])).await?));
            }
            Ok::<_, anyhow::Error>(results)
        });
        let stopping = async {
            apps[stopped].process.wait_for_lines("ran passes", 1).await?;
            apps[stopped].process.signal(Signal::Terminate).await?;
            // The app server waits for one remaining call. Clients without a call have already moved.
            let half = before.iter().filter(|(instance, _)| *instance == before[0].0).count();
            apps[stays].process.wait_for_lines("rehomed ", half - 1).await?;
            http_client::post(&address, "/release").await?;
            let status = apps[stopped].process.ended().await?;
            ensure!(status.success(), "{status}");
            Ok(half)
        };
        let (results, half) = tokio::join!(join_all(calling), stopping);
        let half = half?;
        for results in results {
            for (expected, result) in results? {
                assert_eq!(result, Ok(expected));
            }
        }
        let after = all_who(&clients).await?;
        assert!(after.iter().all(|(instance, _)| *instance != before[0].0), "all are at the one that stays");
        assert!(before.iter().zip(&after).all(|(before, after)| before.1 == after.1), "under their old ids");
        assert_group_delivers(&mut clients, 0, 50).await?;
        for (place, client) in clients.iter().enumerate() {
            assert_eq!(client.invoke("Recall", json!([])).await?, json!(format!("name {place}")), "handed over");
        }
        apps[stays].process.wait_for_lines("rehomed ", half).await?;
        let stays = &apps[stays].process;
        assert_eq!(stays.lines_after("rehomed ").len(), half);
        assert_eq!(stays.lines_after("connected ").len() + half, clients.len());
        assert!(apps[stopped].process.lines_after("disconnected ").is_empty());
        assert!(stays.lines_after("disconnected ").is_empty());
        Ok(())
    });
}

/// Number of clients by app server.
async fn shares(clients: &[Client]) -> Result<Vec<usize>> {
    let mut shares = BTreeMap::new();
    for (instance, _) in all_who(clients).await? {
        *shares.entry(instance).or_default() += 1;
    }
    Ok(shares.into_values().collect())
}

#[test]
fn after_a_rolling_restart_each_app_server_has_its_share_again_and_no_call_has_failed() {
    run_test(async |fixture| {
        let (mut apps, proxies) = mesh(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let clients = crowd(&agents, &proxies).await?;
        let (before, half) = (all_who(&clients).await?, clients.len() / 2);
        assert_eq!(shares(&clients).await?, [half, half]);
        let is_over = Cell::new(false);
        let is_over = &is_over;
        let calling = clients.iter().enumerate().map(|(place, client)| async move {
            let mut calls = 0;
            while !is_over.get() {
                let tag = json!(format!("{place}-{calls}"));
                assert_eq!(client.call("Run", json!([tag])).await?, Ok(tag));
                calls += 1;
                // sleep: pause between calls, like a person
                sleep(CALL_INTERVAL).await;
            }
            Ok::<_, anyhow::Error>(calls)
        });
        let restarting = async {
            for app in &mut apps {
                stop(&mut app.process, Signal::Terminate).await?;
                app.start_again(fixture).await?;
                until(async || Ok((shares(&clients).await? == [half, half]).then_some(()))).await?;
            }
            is_over.set(true);
            Ok::<_, anyhow::Error>(())
        };
        let (calls, restarted) = tokio::join!(join_all(calling), restarting);
        restarted?;
        let calls: usize = calls.into_iter().sum::<Result<usize>>()?;
        eprintln!("{calls} calls of {} clients, none failed", clients.len());
        let after = all_who(&clients).await?;
        assert!(before.iter().zip(&after).all(|(before, after)| before.1 == after.1), "under their old ids");
        for (place, client) in clients.iter().enumerate() {
            assert_eq!(client.invoke("Recall", json!([])).await?, json!(format!("name {place}")), "handed over");
        }
        let mut given = 0.0;
        for proxy in &proxies {
            let metrics = proxy.metrics().await?;
            given += metrics.sum("trunkline_client_connections_app_rebalanced_total", &[]);
            assert_eq!(metrics.sum("trunkline_frames_lost_total", &[]), 0.0, "a stop in order loses nothing");
            let log = proxy.process.log();
            ensure!(!log.contains(" WARN "), "a stop in order is no warning: {log}");
        }
        assert_eq!(given, clients.len() as f64, "half of them, twice");
        assert!(apps.iter().all(|app| app.process.lines_after("disconnected ").is_empty()));
        Ok(())
    });
}

#[test]
fn a_call_that_is_not_done_by_the_deadline_of_a_stop_ends_with_an_error() {
    run_test(async |fixture| {
        let (mut apps, proxies) = mesh(fixture, &["--shutdown-timeout-ms", "200"]).await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &proxies[0].url(HUB)).open().await?;
        let pending = client.call("Pass", json!(["never"]));
        let stopping = async {
            let place = place_of(&apps, "never").await?;
            stop(&mut apps[place].process, Signal::Terminate).await?;
            Ok::<_, anyhow::Error>(place)
        };
        let (outcome, place) = tokio::join!(pending, stopping);
        let error = outcome?.err().context("it fails")?;
        assert!(error.contains("was stopped before the call had ended"), "{error}");
        client.invoke("Run", json!(["goes on"])).await?;
        assert_eq!(place_of(&apps, "goes on").await?, 1 - place?);
        Ok(())
    });
}

#[test]
fn clients_of_the_only_app_server_wait_for_it_to_come_back() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Moves).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        let mut clients = crowd(&agents, &proxies).await?;
        let before = all_who(&clients).await?;
        for round in 0..2 {
            let is_planned = round == 1;
            if is_planned {
                stop(&mut app.process, Signal::Terminate).await?;
            } else {
                app.process.kill().await?;
            }
            for proxy in &proxies {
                until(async || {
                    // Also while a lost app server may return: messages sent then fail with it.
                    let metrics = proxy.metrics().await?;
                    let links = ["open", "resuming"].map(|state| metrics.sum("trunkline_links", &[("state", state)]));
                    Ok((links == [0.0, 0.0]).then_some(()))
                })
                .await?;
            }
            // Messages sent meanwhile wait for the next app server.
            let waiting = clients
                .iter()
                .enumerate()
                .map(|(place, client)| async move { client.call("Run", json!([format!("{round}-{place}")])).await });
            let (results, started) = tokio::join!(join_all(waiting), app.start_again(fixture));
            started?;
            for (place, result) in results.into_iter().enumerate() {
                assert_eq!(result?, Ok(json!(format!("{round}-{place}"))));
            }
            let after = all_who(&clients).await?;
            assert!(before.iter().zip(&after).all(|(before, after)| before.0 != after.0 && before.1 == after.1));
            assert_group_delivers(&mut clients, round, 20).await?;
            for client in &clients {
                client.invoke("Remember", json!(["me"])).await?;
            }
            app.process.wait_for_lines("rehomed ", clients.len()).await?;
            let items = if is_planned { "me" } else { "nothing" };
            assert!(app.process.lines_after("rehomed ").iter().all(|line| line.ends_with(items)));
            assert_eq!(app.process.lines_after("rehomed ").len(), clients.len());
            assert!(app.process.lines_after("connected ").is_empty());
        }
        Ok(())
    });
}

#[test]
fn without_an_app_server_clients_are_told_to_come_again_and_new_ones_wait_if_they_may() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Moves).await?;
        let strict = fleet.proxy_with(&[&app], &["--hold-timeout", "1"]).await?;
        let kind = fleet.proxy_with(&[&app], &["--hold-new"]).await?;
        let old = RawClient::join(strict.address(), HUB).await?;
        app.process.kill().await?;
        let close = old.ending().await?;
        assert_eq!(close.messages()?, [json!({"type": 7, "allowReconnect": true})]);
        let refused = RawClient::try_open(strict.address(), HUB).await?.err().context("nobody is there")?;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE.as_u16());

        let agents = Agents::new(fixture);
        let newcomer = async {
            let client = agents.client(Kind::JsJson, &kind.url(HUB)).open().await?;
            client.invoke("Run", json!(["newcomer"])).await
        };
        let (result, started) = tokio::join!(newcomer, app.start_again(fixture));
        started?;
        assert_eq!(result?, Value::from("newcomer"));
        app.process.wait_for_lines("connected ", 1).await?;
        assert_eq!(app.process.lines_after("connected ").len(), 1);
        assert!(app.process.lines_after("rehomed ").is_empty());
        Ok(())
    });
}

#[test]
fn an_open_stream_ends_with_an_error_when_its_app_server_is_killed() {
    run_test(async |fixture| {
        let (mut apps, proxies) = mesh(fixture, &[]).await?;
        let mut client = RawClient::join(proxies[0].address(), HUB).await?;
        client
            .send_text("{\"type\":4,\"invocationId\":\"s\",\"target\":\"Begin\",\"arguments\":[\"a\"]}\u{1e}")
            .await?;
        let item = client.next_record().await?;
        assert_eq!(item, json!({"type": 2, "invocationId": "s", "item": "a"}));
        let place = place_of(&apps, "a").await?;
        apps[place].process.kill().await?;
        let end = client.next_record().await?;
        assert_eq!((&end["type"], &end["invocationId"]), (&json!(3), &json!("s")));
        assert!(end["error"].as_str().is_some_and(|error| error.contains("is gone")), "{end}");
        client.call("Run", json!(["b"])).await?;
        assert_eq!(place_of(&apps, "b").await?, 1 - place);
        Ok(())
    });
}
