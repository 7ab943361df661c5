//! Processes can start in any order; errors explain the cause; several app servers share the clients.

use std::collections::BTreeMap;
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, Kind, Message};
use trunkline_tests::harness::fleet::{App, Fleet, Proxy, failure_of, stop};
use trunkline_tests::harness::http_client::{get, post};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{run_test, until};
use trunkline_tests::harness::sockets::free_address;

const NEGOTIATE: &str = "/bench/negotiate?negotiateVersion=1";

#[test]
fn a_proxy_waits_for_its_app_server_and_says_so() {
    run_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let address = free_address()?;
        let mut proxy = fleet.proxy_at(&free_address()?, &free_address()?, &[&address])?;
        let waiting = proxy.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
        assert!(!waiting.body.trim().is_empty(), "a reason");
        assert_eq!(get(proxy.admin(), "/healthz").await?.status, StatusCode::OK);
        let refused = post(proxy.address(), NEGOTIATE).await?;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.header("retry-after").is_some());
        assert_eq!(RawClient::try_open(proxy.address(), "/bench").await?.unwrap_err().status, 503);
        proxy.process.wait_for_log(&address).await?;

        let mut app = fleet.app_at(App::Bench, &address, &[])?;
        app.listening().await?;
        proxy.ready().await?;
        assert_eq!(post(proxy.address(), NEGOTIATE).await?.status, StatusCode::OK);
        Ok(())
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_stop_signal_is_caught_no_later_than_any_other() {
    const HANGUP: u64 = 1 << 0;
    const TERMINATE: u64 = 1 << 14;
    run_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let mut proxy = fleet.proxy_at(&free_address()?, &free_address()?, &[&free_address()?])?;
        let status = format!("/proc/{}/status", proxy.process.id()?);
        let caught = loop {
            let text = std::fs::read_to_string(&status)?;
            let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("no SigCgt")?;
            let mask = u64::from_str_radix(mask.trim(), 16)?;
            if mask & HANGUP != 0 {
                break mask;
            }
            tokio::task::yield_now().await;
        };
        ensure!(caught & TERMINATE != 0, "SIGHUP is caught, and SIGTERM is not: {caught:x}");
        stop(&mut proxy.process, Signal::Terminate).await
    });
}

#[test]
fn a_proxy_survives_restarts_of_its_app_server() {
    run_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let mut app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        for round in 0..2 {
            let held = agents.client(Kind::JsJson, &proxy.url("/bench")).open().await?;
            if round == 0 {
                stop(&mut app.process, Signal::Terminate).await?;
            } else {
                app.process.kill().await?;
            }
            proxy.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
            assert_eq!(post(proxy.address(), NEGOTIATE).await?.status, StatusCode::SERVICE_UNAVAILABLE);
            app.start_again(fixture).await?;
            proxy.ready().await?;
            let client = agents.client(Kind::JsMessagePack, &proxy.url("/bench")).open().await?;
            assert_eq!(client.invoke("Echo", json!([round])).await?, round);
            assert_eq!(held.invoke("Echo", json!([round])).await?, round, "who was there has waited");
        }
        Ok(())
    });
}

#[test]
fn clients_with_automatic_reconnect_come_back_when_they_could_not_be_held() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Bench).await?;
        let impatient = ["--hold-timeout", "0"];
        let proxies = [fleet.proxy_with(&[&app], &impatient).await?, fleet.proxy_with(&[&app], &impatient).await?];
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for proxy in &proxies {
            for kind in [Kind::JsJson, Kind::JsMessagePack] {
                let builder = agents.client(kind, &proxy.url("/bench")).subscribe(&["Message"]);
                clients.push(builder.reconnect_after_ms(&[100; 600]).open().await?);
            }
        }
        let ids: Vec<String> = clients.iter().map(|client| client.connection_id().unwrap().to_owned()).collect();
        app.process.kill().await?;
        for proxy in &proxies {
            until(async || {
                let closed = ("trunkline_client_connections_closed_total", [("cause", "no_app_server")]);
                Ok((proxy.metrics().await?.sum(closed.0, &closed.1) >= 2.0).then_some(()))
            })
            .await?;
        }
        app.start_again(fixture).await?;
        for (client, id) in clients.iter_mut().zip(&ids) {
            client.reconnected().await?;
            assert_ne!(client.connection_id()?, id);
        }
        clients[0].invoke("Broadcast", json!(["again"])).await?;
        for client in &mut clients {
            assert_eq!(client.expect("Message").await?, ["again"]);
        }
        Ok(())
    });
}

#[test]
fn the_loss_of_one_of_two_app_servers_costs_no_client() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (mut lost, other) = (fleet.app(App::Bench).await?, fleet.app(App::Bench).await?);
        let mut proxy = fleet.proxy_with(&[&lost, &other], &[]).await?;
        let mut by_instance: BTreeMap<String, Vec<RawClient>> = BTreeMap::new();
        for _ in 0..10 {
            let mut client = RawClient::join(proxy.address(), "/bench").await?;
            by_instance.entry(instance_of_raw(&mut client).await?).or_default().push(client);
        }
        assert_eq!(by_instance.len(), 2);
        lost.process.kill().await?;
        let kept = remaining_instance(&mut proxy, &by_instance).await?;
        for clients in by_instance.into_values() {
            assert_eq!(clients.len(), 5);
            for mut client in clients {
                assert_eq!(instance_of_raw(&mut client).await?, kept);
            }
        }
        proxy.ready().await?;
        for _ in 0..4 {
            let mut newcomer = RawClient::join(proxy.address(), "/bench").await?;
            assert_eq!(instance_of_raw(&mut newcomer).await?, kept);
        }
        Ok(())
    });
}

/// Instance that new clients get after the loss of the other one was detected.
async fn remaining_instance(proxy: &mut Proxy, before: &BTreeMap<String, Vec<RawClient>>) -> Result<String> {
    until(async || {
        let ended = proxy.metrics().await?.sum("trunkline_link_sessions_ended_total", &[]);
        Ok((ended >= 5.0).then_some(()))
    })
    .await?;
    let instance = instance_of_raw(&mut RawClient::join(proxy.address(), "/bench").await?).await?;
    assert!(before.contains_key(&instance));
    Ok(instance)
}

async fn instance_of_raw(client: &mut RawClient) -> Result<String> {
    let answer = client.call("WhoAmI", json!([])).await?;
    Ok(answer["result"]["instance"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_taken_port_is_an_error_that_names_the_flag() {
    run_test(async |fixture| {
        let taken = TcpListener::bind(free_address()?)?;
        let taken = taken.local_addr()?.to_string();
        let fleet = Fleet::new(fixture);
        let upstream = free_address()?;
        let mut no_listen = fleet.proxy_at(&taken, &free_address()?, &[&upstream])?;
        let mut no_admin = fleet.proxy_at(&free_address()?, &taken, &[&upstream])?;
        let mut no_app = fleet.app_at(App::Chat, &taken, &[])?;
        let cases = [
            (&mut no_listen.process, "--listen"),
            (&mut no_admin.process, "--admin"),
            (&mut no_app.process, "--listen"),
        ];
        for (process, flag) in cases {
            let log = failure_of(process).await?;
            assert!(log.contains(flag) && log.contains(&taken), "{log}");
        }
        Ok(())
    });
}

#[test]
fn two_proxies_at_one_port_are_one_too_many() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let mut second = fleet.proxy_at(proxy.address(), &free_address()?, &[app.address()])?;
        let log = failure_of(&mut second.process).await?;
        assert!(log.contains("--listen"), "{log}");
        Ok(())
    });
}

#[test]
fn an_app_server_with_another_key_gets_no_links() {
    run_test(async |fixture| {
        let app = Fleet::in_development(fixture).app(App::Bench).await?;
        let mut proxy = Fleet::new(fixture).proxy_at(&free_address()?, &free_address()?, &[app.address()])?;
        let waiting = proxy.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
        assert!(!waiting.body.trim().is_empty());
        assert_eq!(post(proxy.address(), NEGOTIATE).await?.status, StatusCode::SERVICE_UNAVAILABLE);
        Ok(())
    });
}

async fn instance_of(client: &Client) -> Result<String> {
    let me = client.invoke("WhoAmI", json!([])).await?;
    Ok(me["instance"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn clients_alternate_between_two_app_servers_and_each_reaches_all_of_them() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let apps = [
            fleet.app_with(App::Bench, &["--name", "one"]).await?,
            fleet.app_with(App::Bench, &["--name", "two"]).await?,
        ];
        let upstreams = [&apps[0], &apps[1]];
        let proxies = [fleet.proxy_with(&upstreams, &[]).await?, fleet.proxy_with(&upstreams, &[]).await?];
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        let mut instances = Vec::new();
        for proxy in &proxies {
            let mut at_this_proxy: BTreeMap<String, usize> = BTreeMap::new();
            for kind in Kind::ALL {
                let builder = agents.client(kind, &proxy.url("/bench")).subscribe(&["Message"]);
                let client = builder.open().await?;
                let instance = instance_of(&client).await?;
                *at_this_proxy.entry(instance.clone()).or_default() += 1;
                instances.push(instance);
                clients.push(client);
            }
            assert_eq!(at_this_proxy.into_values().collect::<Vec<_>>(), [2, 2]);
        }

        let everyone = 0..clients.len();
        for sender in everyone.clone() {
            clients[sender].invoke("Broadcast", json!([sender])).await?;
        }
        // Order holds per app server, so each needs a fence.
        let other = everyone.clone().find(|client| instances[*client] != instances[0]).unwrap();
        for fence in [0, other] {
            clients[fence].invoke("Broadcast", json!([format!("fence {fence}")])).await?;
        }
        for client in &mut clients {
            let mut seen = messages_before_both_fences(client, other).await?;
            seen.sort_by_key(|value| value.as_u64());
            assert_eq!(seen, everyone.clone().map(|sender| json!(sender)).collect::<Vec<_>>());
        }
        Ok(())
    });
}

async fn messages_before_both_fences(client: &mut Client, other: usize) -> Result<Vec<Value>> {
    let fences: Vec<Value> = [0, other].iter().map(|fence| json!(format!("fence {fence}"))).collect();
    let mut seen = Vec::new();
    let mut passed = 0;
    while passed < fences.len() {
        let Message { arguments, .. } = client.next().await?;
        if fences.contains(&arguments[0]) {
            passed += 1;
        } else {
            seen.extend(arguments);
        }
    }
    Ok(seen)
}
