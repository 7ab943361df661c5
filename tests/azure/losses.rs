//! Lost server connections and app servers: clients stay, through another server connection.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;
use trunkline_tests::harness::scenario::run_test;

use crate::dial_in::DialIn;
use crate::frame::{brings, data, kind, kind_of, ping};
use crate::scene::{HUB, Member, Scene};
use crate::scripted::{Event, Scripted};
use crate::value::{Value, list};

/// Far longer than needed: turns a hang into a failure.
const GUARD: Duration = Duration::from_secs(30);

/// Header of a moved client, which makes the SDK swallow the handshake response.
const MIGRATED: &str = "Asrs-Migrate-From";

/// Waits until a member is reopened at this app server; the SDK answers the handshake, and the answer is dropped.
async fn reopened(server: &mut Scripted, member: &mut Member, from: &str) -> Result<()> {
    let id = member.id.clone();
    let of_id = |event: &Event, wanted: i64| matches!(event, Event::Frame(frame) if kind_of(frame) == wanted && frame.at(1).as_text() == Some(&id));
    let (place, event) = server.find(|_, event| of_id(event, kind::OPEN_CONNECTION)).await?;
    let Event::Frame(opened) = event else { anyhow::bail!("just found") };
    let Value::Map(headers) = opened.at(3) else { anyhow::bail!("{opened:?}") };
    let named: Vec<_> = headers.iter().filter(|(key, _)| key.as_text() == Some(MIGRATED)).collect();
    ensure!(named.len() == 1 && named[0].1 == list![from], "{opened:?} is not from {from}");
    ensure!(
        headers.iter().any(|(key, _)| key.as_text().is_some_and(|key| key.eq_ignore_ascii_case("user-agent"))),
        "{opened:?} has lost its headers"
    );
    ensure!(opened.at(2) == member.opened.at(2) && opened.at(4) == member.opened.at(4), "{opened:?} is another client");
    let (at, event) = server.find(|_, event| of_id(event, kind::CONNECTION_DATA)).await?;
    let Event::Frame(handshake) = event else { anyhow::bail!("just found") };
    ensure!(
        at == place && brings(&handshake, &id, b"{\"protocol\":\"json\",\"version\":1}\x1e", data::HANDSHAKE),
        "{handshake:?} by {at}"
    );
    member.home = place;
    Ok(())
}

/// Waits until the node asks for a member over another server connection, gets no answer, and reopens it.
async fn missed_and_reopened(server: &mut Scripted, member: &mut Member) -> Result<()> {
    const PAUSE: i64 = 1;
    const RESUME: i64 = 3;
    for operation in [RESUME, PAUSE, PAUSE] {
        let asked = list![kind::FLOW_CONTROL, &member.id, 1, operation, crate::frame::no_ext()];
        server
            .find(|place, event| place != member.home && matches!(event, Event::Frame(frame) if *frame == asked))
            .await?;
    }
    reopened(server, member, "server-a").await
}

#[test]
fn a_cut_server_connection_costs_no_client_and_each_is_opened_again_once() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 3).await?;
        let mut all = Vec::new();
        for number in 0..6 {
            all.push(scene.join_as(&format!("user-{number}")).await?);
        }
        let lost = all[0].home;
        scene.server.cut(lost);
        for member in &mut all {
            if member.home == lost {
                missed_and_reopened(&mut scene.server, member).await?;
            }
            ensure!(member.home != lost);
        }
        for member in &mut all {
            scene.reaches(member, "still here").await?;
            scene.receives(member, "me too").await?;
        }
        scene.server.quiet((lost + 1) % 3).await
    });
}

#[test]
fn a_closed_server_connection_does_the_same() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut member = scene.join_as("ann").await?;
        scene.server.at(member.home)?.close()?;
        let lost = member.home;
        reopened(&mut scene.server, &mut member, "server-a").await?;
        scene.server.ended(lost).await?;
        scene.reaches(&mut member, "still here").await
    });
}

#[test]
fn calls_under_way_are_answered_when_their_server_connection_is_lost() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut member = scene.join_as("ann").await?;
        member
            .socket
            .send_text("{\"type\":1,\"invocationId\":\"7\",\"target\":\"Slow\",\"arguments\":[]}\u{1e}")
            .await?;
        scene.server.expect(kind::CONNECTION_DATA).await?;
        scene.server.cut(member.home);
        let answer = member.socket.next_record().await?;
        ensure!(answer["type"] == 3 && answer["invocationId"] == "7", "{answer}");
        ensure!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer}");
        missed_and_reopened(&mut scene.server, &mut member).await?;
        scene.receives(&mut member, "again").await
    });
}

#[test]
fn groups_and_users_of_a_client_survive_its_server_connection() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut member = scene.join_as("ann").await?;
        let join = list![kind::JOIN_GROUP_WITH_ACK, &member.id, "red", 1, crate::frame::no_ext()];
        scene.server.send(member.home, &join)?;
        scene.server.expect(kind::ACK).await?;
        scene.server.cut(member.home);
        missed_and_reopened(&mut scene.server, &mut member).await?;
        let payloads = crate::frame::payloads(crate::scene::TARGET, "to ann");
        let send = list![kind::USER_DATA, "ann", payloads, crate::frame::no_ext()];
        let mut all = [member];
        let home = all[0].home;
        crate::scene::spreads(&scene.server, home, &send, &mut all, [&["to ann"]]).await
    });
}

#[test]
fn clients_of_a_dead_app_server_are_opened_at_another_one() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut all = Vec::new();
        for number in 0..4 {
            all.push(scene.join_as(&format!("user-{number}")).await?);
        }
        let mut other = Scripted::dial(&scene.dial_in, HUB, "server-b", 2).await?;
        for place in 0..2 {
            scene.server.cut(place);
        }
        for member in &mut all {
            reopened(&mut other, member, "server-a").await?;
        }
        scene.server = other;
        for member in &mut all {
            scene.reaches(member, "still here").await?;
        }
        scene.server.quiet(0).await
    });
}

#[test]
fn clients_of_an_app_server_that_migrates_them_go_at_once_idle_or_not() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut all = Vec::new();
        for number in 0..4 {
            all.push(scene.join_as(&format!("user-{number}")).await?);
        }
        let mut other = Scripted::dial(&scene.dial_in, HUB, "server-b", 2).await?;
        for place in 0..2 {
            scene.server.send(place, &ping(&["shutdown", "fin:1"]))?;
        }
        for member in &mut all {
            let home = member.home;
            // Informs the old app server of the new one, so that its close message does not reach the client.
            let id = member.id.clone();
            let is_close = |place: usize, event: &Event| {
                place == home
                    && matches!(event, Event::Frame(frame) if kind_of(frame) == kind::CLOSE_CONNECTION && frame.at(1).as_text() == Some(&id))
            };
            let (_, event) = scene.server.find(is_close).await?;
            let Event::Frame(closed) = event else { anyhow::bail!("just found") };
            ensure!(closed.at(3).get(&Value::from("Asrs-Migrate-To")) == &list!["server-b"], "{closed:?}");
            reopened(&mut other, member, "server-a").await?;
        }
        scene.server = other;
        for member in &mut all {
            scene.reaches(member, "still here").await?;
            scene.receives(member, "me too").await?;
        }
        Ok(())
    });
}

#[test]
fn an_app_server_that_waits_keeps_its_clients_until_they_go() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        scene.server.send(0, &ping(&["shutdown", "fin:2"]))?;
        scene.server.expect(kind::PING).await?;
        scene.reaches(&mut member, "still here").await?;
        scene.receives(&mut member, "me too").await
    });
}

#[test]
fn with_nowhere_to_go_clients_are_held_a_while_and_then_closed_and_may_come_again() {
    run_test(async |fixture| {
        let dial_in = DialIn::open_with(fixture, &["--hold-timeout", "1"]).await?;
        let server = Scripted::dial(&dial_in, HUB, "server-a", 1).await?;
        let mut scene = Scene { dial_in, server };
        let member = scene.join_as("ann").await?;
        scene.server.cut(0);
        let ending = timeout(GUARD, member.socket.ending()).await.context("it is kept for ever")??;
        let last = ending.messages()?.pop().context("a close message")?;
        ensure!(last["type"] == 7 && last["allowReconnect"] == true, "{last}");
        Ok(())
    });
}

#[test]
fn clients_that_are_held_are_opened_at_the_app_server_that_comes_back() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        scene.server.cut(0);
        scene.dial_in.linked_exactly(0).await?;
        let mut back = Scripted::dial(&scene.dial_in, HUB, "server-b", 1).await?;
        reopened(&mut back, &mut member, "server-a").await?;
        scene.server = back;
        scene.reaches(&mut member, "still here").await
    });
}
