//! Graceful replacement of a proxy: it leaves its load balancer, closes its clients one after another, and ends in
//! time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use trunkline_tests::harness::fleet::{App, Fleet, failure_of, stop};
use trunkline_tests::harness::http_client::post;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, RawClient, upgraded_socket};
use trunkline_tests::harness::scenario::run_test;

/// Enough for the closes to be spread over some seconds.
const CLIENTS: usize = 60;

/// Close message that requests a reconnect.
fn come_again() -> Value {
    json!({ "type": 7, "allowReconnect": true })
}

/// Calls until the node closes the client. Counts answers received after other clients were closed.
async fn call_until_told_to_leave(mut client: RawClient, told: &AtomicUsize, answered: &AtomicUsize) -> Result<()> {
    for number in 0.. {
        let call = json!({ "type": 1, "invocationId": "1", "target": "Echo", "arguments": [number] });
        // A call may cross the close message and find a closed socket.
        drop(client.send_text(format!("{call}\u{1e}")).await);
        let record = client.next_record().await?;
        if record["type"] == 7 {
            assert_eq!(record, come_again());
            told.fetch_add(1, Ordering::SeqCst);
            assert_eq!(client.ending().await?.code, Some(1000));
            break;
        }
        assert_eq!(record["result"], number, "one call after the other");
        if told.load(Ordering::SeqCst) > 0 {
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}

#[test]
fn clients_are_sent_away_one_after_the_other_and_served_until_then() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy_with(&[&app], &["--drain-timeout", "4"]).await?;
        let (told, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = RawClient::join(proxy.address(), "/bench").await?;
            let (told, answered) = (told.clone(), answered.clone());
            clients.spawn(async move { call_until_told_to_leave(client, &told, &answered).await });
        }
        proxy.process.signal(Signal::Terminate).await?;
        // The first client was closed: new clients are asked to connect elsewhere.
        clients.join_next().await.context("a client")???;
        let refused = post(proxy.address(), "/bench/negotiate?negotiateVersion=1").await?;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        let refused = RawClient::try_open(proxy.address(), "/bench").await?.err().context("let in")?;
        assert_eq!(refused.status, 503);
        while let Some(client) = clients.join_next().await {
            client??;
        }
        assert_eq!(told.load(Ordering::SeqCst), CLIENTS);
        assert!(answered.load(Ordering::SeqCst) > CLIENTS, "others were served while some had to leave");
        let status = proxy.process.ended().await?;
        assert!(status.success(), "{status}");
        Ok(())
    });
}

#[test]
fn in_the_grace_period_a_node_is_not_ready_but_serves_new_clients() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy_with(&[&app], &["--drain-grace", "4"]).await?;
        proxy.process.signal(Signal::Terminate).await?;
        let reasons = proxy.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
        assert!(reasons.body.contains("draining"), "{reasons:?}");
        let mut client = RawClient::join(proxy.address(), "/bench").await?;
        assert_eq!(client.call("Echo", json!([1])).await?["result"], 1);
        assert_eq!(client.ending().await?.messages()?, [come_again()]);
        assert!(proxy.process.ended().await?.success());
        Ok(())
    });
}

#[test]
fn a_second_interrupt_or_quit_ends_it_immediately_and_repeats_of_the_other_do_not() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        for (signal, last) in [(Signal::Interrupt, Signal::Interrupt), (Signal::Terminate, Signal::Quit)] {
            let mut proxy = fleet.proxy_with(&[&app], &["--drain-grace", "3600"]).await?;
            let client = RawClient::join(proxy.address(), "/bench").await?;
            proxy.process.signal(signal).await?;
            proxy.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
            for ignored in [Signal::Terminate, Signal::User, Signal::Terminate] {
                proxy.process.signal(ignored).await?;
                proxy.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
            }
            proxy.process.signal(last).await?;
            assert!(failure_of(&mut proxy.process).await?.contains("without a drain"));
            assert_eq!(client.ending().await?.code, None);
        }
        Ok(())
    });
}

#[test]
fn it_ends_in_time_when_app_servers_and_clients_hang() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy_with(&[&app], &["--drain-timeout", "1"]).await?;
        let deaf = upgraded_socket(proxy.address(), "/bench").await?;
        let client = RawClient::join(proxy.address(), "/bench").await?;
        // Client that neither answers a close nor reads.
        let mut hanging = RawClient::open(proxy.address(), "/bench").await?;
        hanging.send_text(JSON_HANDSHAKE).await?;
        app.process.signal(Signal::Freeze).await?;
        stop(&mut proxy.process, Signal::Terminate).await?;
        assert_eq!(client.ending().await?.messages()?, [come_again()]);
        drop((deaf, hanging));
        app.process.signal(Signal::Thaw).await
    });
}
