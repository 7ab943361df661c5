//! Pings of a scripted app server, against a node with dial-in.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use trunkline_tests::harness::scenario::run_test;

use crate::frame::{kind, ping};
use crate::scene::{HUB, Scene};
use crate::scripted::{OWN_PINGS, Scripted};
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
