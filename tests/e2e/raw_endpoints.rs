//! Raw endpoints: text and binary messages in both directions, without a hub protocol, behind two proxies and embedded.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet, POOL_SIZE, stop};
use trunkline_tests::harness::http_client::{get, post};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::{RawClient, rest_after, upgraded_socket};
use trunkline_tests::harness::scenario::{run_test, until};
use trunkline_tests::harness::test_servers::{Setting, TestServers};
use trunkline_tests::harness::token;

const CHUNKS: usize = 1000;

/// Size of the official suites' large messages.
const LARGE_BYTES: usize = 1000 * 4096 + 32;

/// Total size far above the limit of queued calls, but below the outbox limit of a client.
const FLOOD: usize = 3000;
const FLOOD_PADDING_BYTES: usize = 1000;

/// Clients that exchange numbers while app servers stop.
const FEEDERS: usize = 40;

/// Planned stops of the two app servers, alternately.
const STOPS: usize = 5;

/// Echoes of each client between two stops.
const ECHOES_BETWEEN: u64 = 20;

/// Runs behind two proxies and embedded.
fn on_each_ground(app: App, body: impl AsyncFn(&TestServers) -> Result<()>) {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        for setting in Setting::ALL {
            let test_servers = TestServers::start(&fleet, app, setting).await?;
            body(&test_servers).await.with_context(|| format!("{setting:?}"))?;
        }
        Ok(())
    });
}

/// Text for even numbers, bytes for odd ones; every tenth message is empty.
fn chunk(number: usize) -> Message {
    match number {
        _ if number % 10 == 9 => Message::binary(Vec::new()),
        _ if number.is_multiple_of(2) => Message::text(format!("chunk {number}: grüße")),
        _ => Message::binary(number.to_be_bytes().to_vec()),
    }
}

/// Everything that the server sends after these client frames, which have masks of zeros.
async fn end_after(address: &str, path: &str, frames: &[u8]) -> Result<Vec<u8>> {
    rest_after(upgraded_socket(address, path).await?, frames).await
}

#[test]
fn a_thousand_chunks_come_back_whole_in_order_and_as_what_they_are() {
    on_each_ground(App::Functional, async |test_servers| {
        for index in 0..2 {
            let mut client = RawClient::open(test_servers.address(index), "/echo").await?;
            for number in 0..CHUNKS {
                client.send(chunk(number)).await?;
            }
            for number in 0..CHUNKS {
                assert_eq!(client.next_message().await?, chunk(number));
            }
        }
        Ok(())
    });
}

#[test]
fn a_large_message_stays_whole_and_one_that_is_too_large_ends_its_connection() {
    on_each_ground(App::Functional, async |test_servers| {
        let mut client = RawClient::open(test_servers.address(0), "/echo").await?;
        let large: String = "0123456789abcdef".chars().cycle().take(LARGE_BYTES).collect();
        client.send_text(large.as_str()).await?;
        ensure!(client.next_message().await?.into_text()?.as_str() == large, "it came back changed");
        // First bytes of a message without an end.
        let mut client = RawClient::open(test_servers.address(1), "/echo").await?;
        client.send_binary(vec![0; 8 * 1024 * 1024 + 1]).await?;
        assert_eq!(client.ending().await?.code, Some(1009));
        Ok(())
    });
}

#[test]
fn ends_are_clean_from_either_side_and_name_the_error() {
    on_each_ground(App::Calls, async |test_servers| {
        let address = test_servers.address(0);
        // The app completes, the app fails, the client closes without a code.
        assert_eq!(end_after(address, "/raw", b"\x81\x83\0\0\0\0bye").await?, [0x88, 2, 3, 232]);
        assert_eq!(end_after(address, "/raw", b"\x81\x84\0\0\0\0fail").await?, [0x88, 2, 3, 243]);
        assert_eq!(end_after(address, "/raw", b"\x88\x80\0\0\0\0").await?, [0x88, 2, 3, 232]);
        // Invalid text, in one frame and in two.
        assert_eq!(end_after(address, "/raw", b"\x81\x81\0\0\0\0\xff").await?, [0x88, 2, 3, 239]);
        assert_eq!(end_after(address, "/raw", b"\x01\x80\0\0\0\0\x80\x81\0\0\0\0\xc3").await?, [0x88, 2, 3, 239]);
        // A frame that is not masked.
        assert_eq!(end_after(address, "/raw", b"\x81\x01x").await?, [0x88, 2, 3, 234]);
        until(async || {
            let metrics = Metrics::of(test_servers.app.address()).await?;
            let here = metrics.sum("trunkline_app_connections", &[("hub", "raw")]);
            Ok((here == 0.0).then_some(()))
        })
        .await
    });
}

#[test]
fn a_ping_is_answered_between_the_frames_of_a_message() {
    on_each_ground(App::Functional, async |test_servers| {
        let frames = b"\x01\x81\0\0\0\0a\x89\x81\0\0\0\0p\x80\x81\0\0\0\0b\x88\x80\0\0\0\0";
        let rest = end_after(test_servers.address(0), "/echo", frames).await?;
        ensure!(rest.starts_with(b"\x8a\x01p"), "{rest:?}");
        Ok(())
    });
}

#[test]
fn a_client_that_floods_a_slow_handler_is_paused_and_no_other_notices() {
    on_each_ground(App::Calls, async |test_servers| {
        let address = test_servers.address(0);
        let pauses = async || {
            Ok::<_, anyhow::Error>(
                Metrics::of(test_servers.app.address()).await?.sum("trunkline_app_pauses_total", &[("hub", "raw")]),
            )
        };
        let mut flooding = RawClient::open(address, "/raw").await?;
        let mut other = RawClient::open(address, "/raw").await?;
        let mut keeper = RawClient::join(address, "/calls").await?;
        flooding.send_text("wait").await?;
        let text = |number: usize| format!("{number} {}", "x".repeat(FLOOD_PADDING_BYTES));
        let flood = async {
            for number in 0..FLOOD {
                flooding.send_text(text(number)).await?;
            }
            Ok(())
        };
        let meanwhile = async {
            until(async || Ok((pauses().await? > 0.0).then_some(()))).await?;
            for number in 0..100 {
                other.send_text(format!("{number}")).await?;
                assert_eq!(other.next_message().await?, Message::text(format!("{number}")));
            }
            keeper.call("SetGate", json!([true])).await.map(drop)
        };
        tokio::try_join!(flood, meanwhile)?;
        for number in 0..FLOOD {
            assert_eq!(flooding.next_message().await?, Message::text(text(number)));
        }
        Ok(())
    });
}

#[test]
fn the_handler_knows_its_client_and_anybody_can_send_to_it_by_its_id() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Calls).await?;
        let [near, far] = fleet.two_proxies(&app).await?;
        let user = token::signed(ACCESS_KEY, &json!({ "nameid": "ann", "role": "cook" }))?;
        let negotiated =
            post(near.address(), &format!("/raw/negotiate?negotiateVersion=1&access_token={user}")).await?;
        let negotiated = negotiated.json()?;
        let text = |name: &str| negotiated.get(name).and_then(Value::as_str).context("a text is missing");
        let (id, token) = (text("connectionId")?, text("connectionToken")?);
        let path = format!("/raw?room=kitchen&id={token}&access_token={user}");
        let mut ann = RawClient::open(near.address(), &path).await?;
        ann.send_text("who").await?;
        let known: Value = serde_json::from_str(ann.next_message().await?.to_text()?)?;
        let expected = json!({
            "connectionId": id, "user": "ann", "role": "cook", "room": "kitchen", "agent": null, "hasAddress": true,
        });
        assert_eq!(known, expected);
        let mut bob = RawClient::open(far.address(), "/raw").await?;
        bob.send_text(format!("tell {id} it is me")).await?;
        assert_eq!(ann.next_message().await?, Message::text("it is me"));
        Ok(())
    });
}

#[test]
fn clients_go_away_with_their_proxy_and_with_their_app_server() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Functional).await?;
        let [mut first, second] = fleet.two_proxies(&app).await?;
        let (ann, bob) =
            (RawClient::open(first.address(), "/echo").await?, RawClient::open(second.address(), "/echo").await?);
        let (stopped, ending) = tokio::join!(stop(&mut first.process, Signal::Terminate), ann.ending());
        stopped?;
        assert_eq!(ending?.code, Some(1001));
        let (killed, ending) = tokio::join!(app.process.kill(), bob.ending());
        killed?;
        assert_eq!(ending?.code, Some(1001));
        Ok(())
    });
}

#[test]
fn what_redirects_to_echo_keeps_path_and_query() {
    run_test(async |fixture| {
        let app = Fleet::new(fixture).app_with(App::Functional, &["--embedded"]).await?;
        for (path, location) in [
            ("/echoredirect", "/echo"),
            ("/echoredirect?id=1", "/echo?id=1"),
            ("/echoredirect/negotiate?negotiateVersion=1", "/echo/negotiate?negotiateVersion=1"),
        ] {
            let answer = get(app.address(), path).await?;
            assert_eq!((answer.status.as_u16(), answer.header("location")), (307, Some(location)));
        }
        Ok(())
    });
}

/// Sends numbers, and reads their echoes and the app's own numbers until the end. Checks that all arrive, once and in
/// order.
async fn feed(client: &mut RawClient, least: &Cell<u64>, is_over: &Cell<bool>) -> Result<u64> {
    let (mut number, mut heard) = (0, 0);
    while !is_over.get() {
        number += 1;
        let text = format!("up {number}");
        let message = if number % 2 == 0 { Message::text(text) } else { Message::binary(text.into_bytes()) };
        client.send(message.clone()).await?;
        loop {
            let answer = client.next_message().await?;
            if answer == message {
                break;
            }
            heard += 1;
            ensure!(answer == Message::text(format!("down {heard}")), "{answer:?} came before the echo of {number}");
        }
        least.set(least.get().max(number));
    }
    Ok(heard)
}

#[test]
fn clients_that_may_move_notice_no_planned_stop_of_their_app_server() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = || fleet.app_with(App::Moves, &["--feed"]);
        let mut apps = [app().await?, app().await?];
        let upstreams = [&apps[0], &apps[1]];
        let proxies = [fleet.proxy_with(&upstreams, &[]).await?, fleet.proxy_with(&upstreams, &[]).await?];
        for proxy in &proxies {
            proxy.linked(4 * POOL_SIZE).await?;
        }
        let opening = (0..FEEDERS).map(|place| RawClient::open(proxies[place % 2].address(), "/feed"));
        let mut clients = try_join_all(opening).await?;
        let (numbers, is_over) = (vec![Cell::new(0); FEEDERS], Cell::new(false));
        let all_have = async |number| {
            until(async || Ok(numbers.iter().all(|echoed| echoed.get() >= number).then_some(()))).await?;
            Ok::<_, anyhow::Error>(number + ECHOES_BETWEEN)
        };
        let replacing = async {
            let mut number = ECHOES_BETWEEN;
            for round in 0..STOPS {
                number = all_have(number).await?;
                let app = &mut apps[round % 2];
                stop(&mut app.process, Signal::Terminate).await?;
                app.start_again(fixture).await?;
                for proxy in &proxies {
                    proxy.linked(4 * POOL_SIZE).await?;
                }
            }
            all_have(number).await?;
            is_over.set(true);
            Ok(())
        };
        let feeding =
            try_join_all(clients.iter_mut().zip(&numbers).map(|(client, least)| feed(client, least, &is_over)));
        let (heard, ()) = futures_util::future::try_join(feeding, replacing).await?;
        ensure!(heard.iter().all(|heard| *heard > 0), "the app's own numbers come too: {heard:?}");
        for proxy in &proxies {
            let metrics = proxy.metrics().await?;
            assert_eq!(metrics.sum("trunkline_client_connections_closed_total", &[]), 0.0);
            let moved = metrics.sum("trunkline_client_connections_rehomed_total", &[]);
            ensure!(moved > 0.0, "{moved} have moved");
        }
        Ok(())
    });
}
