//! Each row of the table of pings, against a node with dial-in.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use trunkline_tests::harness::scenario::run_test;

use crate::frame::{frame, kind, kind_of, ping};
use crate::scene::{HUB, Scene};
use crate::scripted::{ConnectionType, Dial, Event, OWN_PINGS, Scripted, handshake_request};
use crate::value::Value;

async fn words(server: &mut Scripted) -> Result<(usize, Vec<String>)> {
    let (place, frame) = server.expect(kind::PING).await?;
    let Value::List(elements) = frame else { anyhow::bail!("a ping is a list") };
    Ok((place, elements.iter().skip(1).filter_map(Value::as_text).map(str::to_owned).collect()))
}

/// Word after this key.
fn value_of<'a>(words: &'a [String], key: &str) -> Option<&'a str> {
    words.chunks(2).find(|pair| pair.first().is_some_and(|first| first == key))?.get(1).map(String::as_str)
}

#[test]
fn a_status_ping_is_answered_with_whether_there_are_clients() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let status = async |server: &mut Scripted| {
            server.send(1, &ping(&["status", "1", "clientcount", "7"]))?;
            let (place, words) = words(server).await?;
            ensure!(place == 1, "{words:?} comes by {place}");
            value_of(&words, "status").map(str::to_owned).context("a status")
        };
        ensure!(status(&mut scene.server).await? == "0", "there is no client yet");
        let _member = scene.join_as("ann").await?;
        ensure!(status(&mut scene.server).await? == "1", "there is a client");
        Ok(())
    });
}

#[test]
fn a_servers_ping_is_answered_with_all_app_servers_in_a_stable_order() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut other = Scripted::dial(&scene.dial_in, HUB, "server-b", 2).await?;
        let ask = async |server: &mut Scripted| {
            server.send(0, &ping(&["servers", ""]))?;
            let (_, words) = words(server).await?;
            let value = value_of(&words, "servers").context("servers")?.to_owned();
            let (time, names) = value.split_once(':').context("a colon")?;
            Ok::<_, anyhow::Error>((time.parse::<u64>()?, names.to_owned()))
        };
        let (earlier, names) = ask(&mut scene.server).await?;
        ensure!(names.split(';').collect::<Vec<_>>() == ["server-a", "server-b"], "{names}");
        let (later, again) = ask(&mut other).await?;
        ensure!(names == again && later >= earlier, "{earlier}:{names}, then {later}:{again}");
        // .NET ticks: the SDK considers smaller numbers outdated.
        ensure!(earlier > 638_000_000_000_000_000, "{earlier}");
        Ok(())
    });
}

#[test]
fn a_shutdown_ping_of_each_kind_is_acknowledged() {
    for fin in ["fin:0", "fin:1", "fin:2"] {
        run_test(async |fixture| {
            let mut scene = Scene::open(fixture, 2).await?;
            for place in [0, 1, 1] {
                scene.server.send(place, &ping(&["shutdown", fin]))?;
                let (at, words) = words(&mut scene.server).await?;
                ensure!((at, words.as_slice()) == (place, &["shutdown".into(), "finack".into()]), "{words:?} by {at}");
            }
            Ok(())
        });
    }
}

#[test]
fn an_app_server_that_shuts_down_gets_no_new_client() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut leaving = Scripted::dial(&scene.dial_in, HUB, "server-b", 2).await?;
        for place in 0..2 {
            leaving.send(place, &ping(&["shutdown", "fin:2"]))?;
            leaving.expect(kind::PING).await?;
        }
        let mut members = Vec::new();
        for number in 0..6 {
            members.push(scene.join_as(&format!("user-{number}")).await?);
        }
        leaving.quiet(0).await
    });
}

#[test]
fn unknown_odd_and_foreign_pings_do_nothing() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        for words in [
            &["unknown", "x"][..],
            &["odd"],
            &["echo", "an-id-of-nobody"],
            &["offline", "node-9"],
            &["target", "node-9"],
            &["capacity", "1000", "servercount", "2"],
            &["d-m", "1"],
            &["#clientInHub", "1", "#client", "1"],
            &["#clientInHub", "many", "#client", "-1"],
            &["shutdown", "fin:9"],
            &["shutdown", ""],
        ] {
            scene.server.send(0, &ping(words))?;
            scene.reaches(&mut member, "still here").await.with_context(|| format!("after {words:?}"))?;
        }
        scene.server.send(0, &ping(&[]))?;
        scene.receives(&mut member, "and me").await
    });
}

#[test]
fn a_silent_client_costs_keep_alives_only_and_the_node_speaks_at_least_each_five_seconds() {
    run_test(async |fixture| {
        let scene = Scene::open(fixture, 0).await?;
        let mut socket = Dial::of(HUB, "server-a")?
            .upgrade(scene.dial_in.address())
            .await?
            .map_err(|status| anyhow::anyhow!("{status}"))?;
        use futures_util::{SinkExt, StreamExt};
        use tokio_tungstenite::tungstenite::Message;
        socket.send(Message::binary(frame(&handshake_request(ConnectionType::Default, 0)))).await?;
        let mut bytes = Vec::new();
        let mut keep_alives = 0;
        let begun = tokio::time::Instant::now();
        while keep_alives < 2 {
            if let Message::Binary(more) = socket.next().await.context("the node closed")?? {
                bytes.extend_from_slice(&more);
            }
            while let Some(message) = crate::frame::take_frame(&mut bytes)? {
                keep_alives += usize::from(crate::frame::message(&message)? == ping(&[]));
            }
        }
        // Much longer than two intervals, much shorter than the 30 s after which the SDK gives up a service.
        ensure!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        Ok(())
    });
}

#[test]
fn an_app_server_that_says_nothing_any_more_is_given_up_after_thirty_seconds() {
    if !trunkline_tests::harness::scenario::is_full() {
        return;
    }
    run_test(async |fixture| {
        let scene = Scene::open(fixture, 0).await?;
        let mut socket = Dial::of(HUB, "server-a")?
            .upgrade(scene.dial_in.address())
            .await?
            .map_err(|status| anyhow::anyhow!("{status}"))?;
        use futures_util::{SinkExt, StreamExt};
        use tokio_tungstenite::tungstenite::Message;
        socket.send(Message::binary(frame(&handshake_request(ConnectionType::Default, 0)))).await?;
        let begun = tokio::time::Instant::now();
        while let Some(Ok(message)) = socket.next().await {
            ensure!(begun.elapsed().as_secs() < 60, "it is still kept: {message:?}");
        }
        ensure!(begun.elapsed().as_secs() >= 25, "given up after {:?}", begun.elapsed());
        Ok(())
    });
}

#[test]
fn an_app_server_of_the_sdk_gets_no_ping_of_our_own() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        // A Trunkline app server would have received several acknowledgements after this many frames.
        for number in 0..200 {
            scene.reaches(&mut member, &format!("{number}")).await?;
        }
        scene.server.fence(0).await?;
        // Counts pings to all tests, so the count must be zero.
        let count = OWN_PINGS.load(Ordering::Relaxed);
        ensure!(count == 0, "{count} pings that only our own app servers understand");
        Ok(())
    });
}

#[test]
fn a_ping_before_anything_else_on_a_new_connection_comes_behind_its_handshake() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 0).await?;
        scene.server.connect(scene.dial_in.address(), ConnectionType::Default).await?;
        scene.server.send(0, &ping(&["status", "1"]))?;
        let (_, event) = scene.server.next().await?;
        ensure!(matches!(&event, Event::Frame(frame) if kind_of(frame) == kind::PING), "{event:?}");
        Ok(())
    });
}
