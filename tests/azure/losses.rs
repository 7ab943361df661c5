//! Lost server connections and app servers: clients stay, through another server connection.

use anyhow::{Result, ensure};
use trunkline_tests::harness::scenario::run_test;

use crate::frame::{brings, data, kind, kind_of};
use crate::scene::{HUB, Member, Scene};
use crate::scripted::{Event, Scripted};
use crate::value::{Value, list};

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
