//! Sends of the service protocol, and messages that have no effect, against a node with dial-in.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use trunkline_tests::harness::scenario::run_test;

use crate::frame::{kind, no_ext, payloads};
use crate::scene::{HUB, Member, Scene, TARGET, receive, spreads, to};
use crate::scripted::{Event, Scripted};
use crate::value::{Value, list, map};

/// Status numbers of acknowledged requests.
const OK: i64 = 1;
const NOT_FOUND: i64 = 2;

/// Three clients on two server connections: the first speaks JSON, the second MessagePack; user ann also has the third.
async fn crowd(scene: &mut Scene) -> Result<Vec<Member>> {
    Ok(vec![
        scene.join_as("ann").await?,
        scene.join_by("messagepack", &json!({ "nameid": "bob" })).await?,
        scene.join_as("ann").await?,
    ])
}

/// Sends a request and returns its ack, which must arrive over the same server connection in its documented form.
async fn ack(server: &mut Scripted, place: usize, request: &Value, ack_id: i64) -> Result<(i64, Value)> {
    server.send(place, request)?;
    let (at, answer) = server.expect(kind::ACK).await.with_context(|| format!("{request:?}"))?;
    ensure!(at == place, "the ack of {request:?} comes by {at} instead of {place}");
    ensure!(answer.at(1) == &Value::Int(ack_id), "{answer:?} answers {request:?}");
    ensure!(matches!(&answer, Value::List(all) if all.len() == 6), "{answer:?} has no six elements");
    ensure!(answer.at(4) == &no_ext(), "{answer:?} has extensions");
    Ok((answer.at(2).as_int().context("a status")?, answer.at(5).clone()))
}

async fn acked(server: &mut Scripted, place: usize, request: &Value, ack_id: i64, status: i64) -> Result<()> {
    let (given, _) = ack(server, place, request, ack_id).await?;
    ensure!(given == status, "{request:?} is answered with status {given}");
    Ok(())
}

fn group_broadcast(group: &str, excluded: &[&str], excluded_users: &[&str], text: &str) -> Value {
    let texts = |all: &[&str]| all.iter().map(|one| Value::from(*one)).collect::<Vec<_>>();
    let payloads = payloads(TARGET, text);
    list![kind::GROUP_BROADCAST_DATA, group, texts(excluded), payloads, no_ext(), texts(excluded_users), Value::Nil]
}

#[test]
fn sends_to_connections_users_and_everyone_reach_just_those_they_are_for() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut all = crowd(&mut scene).await?;
        let ids: Vec<String> = all.iter().map(|member| member.id.clone()).collect();
        let of = |text| payloads(TARGET, text);
        let rows: [(Value, [&[&str]; 3]); 8] = [
            (to(&[&ids[0], &ids[1]], "seven"), [&["seven"], &["seven"], &[]]),
            (list![kind::USER_DATA, "ann", of("eight"), no_ext()], [&["eight"], &[], &["eight"]]),
            (list![kind::MULTI_USER_DATA, list!["bob", "ann"], of("nine"), no_ext()], [&["nine"]; 3]),
            (list![kind::BROADCAST_DATA, list![], of("ten"), no_ext()], [&["ten"]; 3]),
            (list![kind::BROADCAST_DATA, list![&ids[1]], of("but one"), no_ext()], [&["but one"], &[], &["but one"]]),
            // Short forms of older SDKs, and a tracing id, which clients must not receive.
            (list![kind::BROADCAST_DATA, list![], of("short")], [&["short"]; 3]),
            (list![kind::USER_DATA, "bob", of("short")], [&[], &["short"], &[]]),
            (list![kind::BROADCAST_DATA, list![], of("traced"), map! { 1 => 4660 }], [&["traced"]; 3]),
        ];
        for (frame, expected) in &rows {
            for place in 0..2 {
                spreads(&scene.server, place, frame, &mut all, *expected).await?;
            }
        }
        // No client here speaks the payload's protocol, and unknown receivers get nothing.
        let blazor = map! { "blazorpack" => b"\x02\x91\x06".as_slice() };
        for frame in [
            list![kind::BROADCAST_DATA, list![], blazor, no_ext()],
            to(&["nobody"], "lost"),
            list![kind::USER_DATA, "nobody", of("lost"), no_ext()],
            list![kind::MULTI_USER_DATA, list![], of("lost"), no_ext()],
        ] {
            spreads(&scene.server, 0, &frame, &mut all, [&[], &[], &[]]).await?;
        }
        scene.server.quiet(0).await
    });
}

#[test]
fn groups_are_joined_left_and_sent_to() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut all = crowd(&mut scene).await?;
        let ids: Vec<String> = all.iter().map(|member| member.id.clone()).collect();
        let server = &mut scene.server;
        for (ack_id, id) in (1..).zip(&ids) {
            let join = list![kind::JOIN_GROUP_WITH_ACK, id, "red", ack_id, no_ext()];
            acked(server, 0, &join, ack_id, OK).await?;
        }
        acked(server, 1, &list![kind::JOIN_GROUP_WITH_ACK, &ids[0], "blue", 300], 300, OK).await?;
        let two = list![kind::MULTI_GROUP_BROADCAST_DATA, list!["red", "none"], payloads(TARGET, "some"), no_ext()];
        let rows: [(Value, [&[&str]; 3]); 6] = [
            (group_broadcast("red", &[], &[], "all"), [&["all"]; 3]),
            (group_broadcast("blue", &[], &[], "one"), [&["one"], &[], &[]]),
            (group_broadcast("red", &[&ids[2]], &[], "but"), [&["but"], &["but"], &[]]),
            (group_broadcast("red", &[], &["ann"], "no ann"), [&[], &["no ann"], &[]]),
            (two, [&["some"]; 3]),
            (group_broadcast("Red", &[], &[], "other case"), [&[]; 3]),
        ];
        for (frame, expected) in &rows {
            spreads(server, 1, frame, &mut all, *expected).await?;
        }
        let short = list![kind::GROUP_BROADCAST_DATA, "red", list![], payloads(TARGET, "short")];
        spreads(server, 0, &short, &mut all, [&["short"]; 3]).await?;
        acked(server, 0, &list![kind::LEAVE_GROUP_WITH_ACK, &ids[0], "red", 301, no_ext()], 301, OK).await?;
        spreads(server, 0, &group_broadcast("red", &[], &[], "left"), &mut all, [&[], &["left"], &["left"]]).await?;
        // Without a group name, the request leaves all groups.
        acked(server, 0, &list![kind::LEAVE_GROUP_WITH_ACK, &ids[0], Value::Nil, 302, no_ext()], 302, OK).await?;
        spreads(server, 0, &group_broadcast("blue", &[], &[], "empty"), &mut all, [&[]; 3]).await?;
        let stranger = list![kind::JOIN_GROUP_WITH_ACK, "nobody", "red", 303, no_ext()];
        acked(server, 0, &stranger, 303, NOT_FOUND).await?;
        server.quiet(0).await
    });
}

#[test]
fn a_weak_connection_sends_and_asks_but_gets_no_client() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut manager = Scripted::new(HUB, "manager");
        let weak = manager.connect(scene.dial_in.address(), crate::scripted::ConnectionType::Weak).await?;
        let mut all = crowd(&mut scene).await?;
        let ids: Vec<String> = all.iter().map(|member| member.id.clone()).collect();
        acked(&mut manager, weak, &list![kind::JOIN_GROUP_WITH_ACK, &ids[0], "red", 1, no_ext()], 1, OK).await?;
        spreads(&manager, weak, &group_broadcast("red", &[], &[], "red"), &mut all, [&["red"], &[], &[]]).await?;
        spreads(&manager, weak, &to(&[&ids[1]], "you"), &mut all, [&[], &["you"], &[]]).await?;
        manager.quiet(weak).await?;
        receive(&scene.server, 0, &mut all, [&[]; 3]).await
    });
}

#[test]
fn messages_that_only_the_service_sends_and_unknown_ones_do_nothing() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        let id = member.id.clone();
        for frame in [
            list![15, "an error"],
            list![20, 1, 1, "", no_ext(), Value::Nil],
            list![22, 4, "sc-1", 3, "slow down", no_ext()],
            list![28, "token", "kid", no_ext()],
            list![29, "kid", "key", Value::Nil, Value::Nil, no_ext()],
            list![37, "i", &id, "instance", no_ext()],
            list![38, &id, no_ext()],
            list![41, "token", map! {}, 1, 2],
            list![99, "what", 1, map! {}],
            list![1, 1, 0, "", 0, no_ext(), false],
            list![2, Value::Nil, no_ext(), "sc-1"],
            list![4, "c-new", map! {}, map! {}, "", no_ext()],
        ] {
            scene.server.send(0, &frame)?;
            scene.reaches(&mut member, "still here").await.with_context(|| format!("after {frame:?}"))?;
        }
        let came = scene.server.fence(0).await?;
        let others: Vec<_> = came
            .iter()
            .filter(|(_, event)| !matches!(event, Event::Frame(frame) if crate::frame::kind_of(frame) == 29))
            .collect();
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    });
}

#[test]
fn a_client_that_is_paused_by_nobody_ignores_flow_control() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut member = scene.join_as("ann").await?;
        for (of_type, operation) in [(1, 2), (2, 4), (0, 9), (1, 1), (1, 3)] {
            let control =
                list![kind::FLOW_CONTROL, &member.id, Value::Fixed(of_type), Value::Fixed(operation), no_ext()];
            scene.server.send(0, &control)?;
        }
        scene.server.fence(0).await?;
        scene.reaches(&mut member, "still here").await?;
        scene.receives(&mut member, "me too").await
    });
}
