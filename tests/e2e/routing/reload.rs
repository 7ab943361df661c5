//! The file changes while clients call and receive: clients move, without lost or duplicate messages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, AppServer, Fleet, POOL_SIZE};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{is_full, run_heavy_test, run_test, until};
use trunkline_tests::harness::token::of_user;

use super::ruled_fleet::{HUBS, RuledNode, group, home, named, routes};

const CLIENTS: usize = 50;

const ROOM: &str = "room";

fn user(number: usize) -> String {
    format!("{}-{number}", if number.is_multiple_of(2) { "even" } else { "odd" })
}

/// Fifty clients of both hub protocols that receive numbers sent to everyone and to the group.
async fn crowd<'a>(agents: &'a Agents<'a>, node: &RuledNode) -> Result<Vec<Client>> {
    let opening = (0..CLIENTS).map(async |number| {
        let token = of_user(ACCESS_KEY, &user(number))?;
        let kind = Kind::JS[number / 2 % 2];
        let client = agents.client(kind, &node.chat()).access_token(&token).count(&["Number", "GroupNumber"]);
        let client = client.open().await?;
        client.invoke("Join", json!([ROOM])).await?;
        Ok::<_, anyhow::Error>(client)
    });
    try_join_all(opening).await
}

/// Calls with consecutive numbers until the end. Returns the number of answers.
async fn call_on(client: &Client, is_over: &AtomicBool) -> Result<u64> {
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        let answer = client.invoke("Hear", json!([number])).await?;
        ensure!(answer == json!(number), "{answer} instead of {number}");
        number += 1;
    }
    Ok(number)
}

/// Sends numbers to everyone and to the group until the end. Returns the count.
async fn speak_on(speaker: &Client, is_over: &AtomicBool) -> Result<u64> {
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        speaker.invoke("Count", json!([number])).await?;
        speaker.invoke("CountIn", json!([ROOM, number])).await?;
        number += 1;
    }
    Ok(number)
}

/// Waits until each client is at the app server that `expected` returns for its number.
async fn are_at(clients: &[Client], expected: impl Fn(usize) -> &'static str) -> Result<()> {
    until(async || {
        let homes: Vec<_> = try_join_all(clients.iter().map(home)).await?;
        Ok(homes.iter().enumerate().all(|(number, home)| home == expected(number)).then_some(()))
    })
    .await
}

/// Numbers received from each connection, over all app servers.
fn received_numbers(apps: &[&AppServer]) -> BTreeMap<String, Vec<u64>> {
    let mut received_numbers = BTreeMap::<String, Vec<u64>>::new();
    for line in apps.iter().flat_map(|app| app.process.lines_after("heard ")) {
        if let Some((id, number)) = line.split_once(' ') {
            received_numbers.entry(id.to_owned()).or_default().extend(number.parse::<u64>());
        }
    }
    received_numbers
}

/// Moves half of the clients to another group and back, and adds and removes groups.
async fn change_all(node: &RuledNode, clients: &[Client], (canary, extra): (&AppServer, &AppServer)) -> Result<()> {
    let evens = |rules: String, group: &str| rules + &routes([&format!("user = \"even-*\"\ngroup = \"{group}\"")]);
    let half = |name: &'static str| move |number: usize| if number.is_multiple_of(2) { name } else { "stable" };
    node.reload(&group("canary", canary)).await?;
    node.linked("canary", HUBS * POOL_SIZE).await?;
    node.reload(&evens(group("canary", canary), "canary")).await?;
    are_at(clients, half("canary")).await?;
    // An invalid file moves no client.
    node.change("[[routes]]\ngroup = \"canari\"\n", "invalid", Some(Signal::Hangup)).await?;
    are_at(clients, half("canary")).await?;
    // A new group arrives with its route, and the change is noticed without a signal.
    let both = group("canary", canary) + &group("extra", extra);
    node.change(&evens(both, "extra"), "ok", None).await?;
    are_at(clients, half("extra")).await?;
    // The group is removed with its route.
    node.reload(&evens(group("canary", canary), "canary")).await?;
    are_at(clients, half("canary")).await?;
    until(async || Ok((node.links("extra").await? == 0).then_some(()))).await?;
    // All rules are removed together.
    node.reload("").await?;
    are_at(clients, |_| "stable").await
}

#[test]
fn clients_that_call_and_listen_lose_nothing_while_routes_move_them_to_and_fro() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (stable, canary) = (named(&fleet, "stable").await?, named(&fleet, "canary").await?);
        let extra = named(&fleet, "extra").await?;
        let node = RuledNode::with_apps(&fleet, &stable, &["stable"], "").await?;
        let agents = Agents::new(fixture);
        let clients = crowd(&agents, &node).await?;
        let speaker = agents.client(Kind::JsJson, &node.chat()).open().await?;
        let is_over = AtomicBool::new(false);
        let changing = async {
            for _ in 0..if is_full() { 20 } else { 1 } {
                change_all(&node, &clients, (&canary, &extra)).await?;
            }
            is_over.store(true, Ordering::Relaxed);
            Ok::<_, anyhow::Error>(())
        };
        let calling = join_all(clients.iter().map(|client| call_on(client, &is_over)));
        let (changed, called, spoken) = tokio::join!(changing, calling, speak_on(&speaker, &is_over));
        changed?;
        let (called, spoken) = (called.into_iter().collect::<Result<Vec<_>>>()?, spoken?);
        // Output of an app server is read slightly later than its answer.
        let apps = [&stable, &canary, &extra];
        let all = called.iter().sum::<u64>();
        let received_numbers = until(async || {
            let received_numbers = received_numbers(&apps);
            let count = received_numbers.values().map(|numbers| numbers.len() as u64).sum::<u64>();
            Ok((count >= all).then_some(received_numbers))
        })
        .await?;
        for (client, called) in clients.iter().zip(&called) {
            client.is_undisturbed().await?;
            let id = client.connection_id()?;
            let mut numbers = received_numbers.get(id).cloned().context("it has called")?;
            numbers.sort_unstable();
            assert_eq!(numbers, (0..*called).collect::<Vec<_>>(), "each call has run once");
            for target in ["Number", "GroupNumber"] {
                let sequence = client.sequence(target, spoken).await?;
                assert_eq!((sequence.received, sequence.broken), (spoken, None), "{target}");
            }
        }
        assert!(spoken > 20 && called.iter().all(|called| *called > 20), "{spoken} {called:?}");
        for app in apps {
            assert_eq!(app.process.lines_after("disconnected "), [""; 0]);
        }
        assert_eq!([&canary, &extra].map(|app| app.process.lines_after("connected ").len()), [0, 0]);
        assert!(canary.process.lines_after("rehomed ").len() >= CLIENTS);
        Ok(())
    });
}

#[test]
fn a_bad_file_keeps_the_old_rules_and_the_log_says_where_it_is_bad() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (stable, canary) = (named(&fleet, "stable").await?, named(&fleet, "canary").await?);
        let good = group("canary", &canary) + &routes(["hub = \"/chat\"\ngroup = \"canary\""]);
        let mut node = RuledNode::with_apps(&fleet, &stable, &["stable", "canary"], &good).await?;
        let agents = Agents::new(fixture);
        let bad = [
            (good.replace("\"/chat\"", "/chat"), "line 4, column 7"),
            (
                good.replace("group = \"canary\"", "group = \"canari\""),
                "line 5, column 9: there is no group \"canari\"",
            ),
            (good.replace("hub", "hup"), "line 4, column 1: unknown key \"hup\""),
            (good.replace("[[routes]]", "[[route]]"), "line 3, column 3: unknown key \"route\""),
            (format!("{good}percent = 200\n"), "line 6, column 11: percent is 200"),
        ];
        for (rules, problem) in &bad {
            node.change(rules, "invalid", Some(Signal::Hangup)).await?;
            node.proxy.process.wait_for_log(&problem.replace('"', "\\\"")).await?;
            let client = agents.client(Kind::JsJson, &node.chat()).open().await?;
            assert_eq!(home(&client).await?, "canary", "{problem}");
        }
        let reads = "trunkline_rule_reads_total";
        assert_eq!(node.metric(reads, &[("outcome", "invalid")]).await?, bad.len() as f64);
        assert_eq!(node.metric(reads, &[("outcome", "ok")]).await?, 0.0);
        node.reload("").await?;
        let client = agents.client(Kind::JsJson, &node.chat()).open().await?;
        assert_eq!(home(&client).await?, "stable");
        Ok(())
    });
}

#[test]
fn app_servers_that_change_their_groups_with_each_other_keep_all_clients() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let stable = named(&fleet, "stable").await?;
        let (blue, green) = (named(&fleet, "blue").await?, named(&fleet, "green").await?);
        let halves = routes(["user = \"even-*\"\ngroup = \"one\"", "hub = \"*\"\nuser = \"odd-*\"\ngroup = \"other\""]);
        let rules = |one, other| group("one", one) + &group("other", other) + &halves;
        let node = RuledNode::with_apps(&fleet, &stable, &["blue", "green"], &rules(&blue, &green)).await?;
        let agents = Agents::new(fixture);
        let clients = crowd(&agents, &node).await?;
        let at = |pair: [&'static str; 2]| move |number: usize| pair[number % 2];
        are_at(&clients, at(["blue", "green"])).await?;
        let is_over = AtomicBool::new(false);
        let changing = async {
            node.reload(&rules(&green, &blue)).await?;
            are_at(&clients, at(["green", "blue"])).await?;
            node.reload(&rules(&blue, &green)).await?;
            are_at(&clients, at(["blue", "green"])).await?;
            is_over.store(true, Ordering::Relaxed);
            Ok::<_, anyhow::Error>(())
        };
        let calling = try_join_all(clients.iter().map(|client| call_on(client, &is_over)));
        let (changed, called) = tokio::join!(changing, calling);
        changed?;
        called?;
        try_join_all(clients.iter().map(Client::is_undisturbed)).await?;
        for app in [&blue, &green, &stable] {
            assert_eq!(app.process.lines_after("disconnected "), [""; 0]);
        }
        Ok(())
    });
}
