//! Each row of the service protocol's table of messages, against a node with dial-in.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use trunkline_tests::harness::scenario::run_test;

use crate::frame::{close_connection, connection_data, data, kind, message, no_ext, payloads};
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
fn groups_of_older_sdks_are_joined_and_left_without_acks() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut all = crowd(&mut scene).await?;
        let id = all[1].id.clone();
        let server = &mut scene.server;
        server.send(0, &list![kind::JOIN_GROUP, &id, "red", no_ext()])?;
        server.send(0, &list![kind::JOIN_GROUP, &id, "blue"])?;
        server.send(0, &list![kind::JOIN_GROUP, "nobody", "red", no_ext()])?;
        spreads(server, 0, &group_broadcast("red", &[], &[], "in"), &mut all, [&[], &["in"], &[]]).await?;
        server.send(0, &list![kind::LEAVE_GROUP, &id, "red", no_ext()])?;
        spreads(server, 0, &group_broadcast("red", &[], &[], "out"), &mut all, [&[]; 3]).await?;
        spreads(server, 0, &group_broadcast("blue", &[], &[], "still"), &mut all, [&[], &["still"], &[]]).await?;
        server.quiet(0).await
    });
}

#[test]
fn users_join_and_leave_groups_with_all_their_connections() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut all = crowd(&mut scene).await?;
        let server = &mut scene.server;
        let join = list![kind::USER_JOIN_GROUP_WITH_ACK, "ann", "red", 7, no_ext()];
        acked(server, 0, &join, 7, OK).await?;
        spreads(server, 0, &group_broadcast("red", &[], &[], "in"), &mut all, [&["in"], &[], &["in"]]).await?;
        let is_in = |user: &str, group: &str, ack| list![kind::CHECK_USER_IN_GROUP, user, group, ack, no_ext()];
        acked(server, 0, &is_in("ann", "red", 8), 8, OK).await?;
        acked(server, 0, &is_in("bob", "red", 9), 9, NOT_FOUND).await?;
        acked(server, 0, &list![kind::USER_LEAVE_GROUP_WITH_ACK, "ann", "red", 10, no_ext()], 10, OK).await?;
        spreads(server, 0, &group_broadcast("red", &[], &[], "out"), &mut all, [&[]; 3]).await?;
        acked(server, 0, &is_in("ann", "red", 11), 11, NOT_FOUND).await?;
        // Without acks, and all groups together.
        server.send(0, &list![kind::USER_JOIN_GROUP, "bob", "red", no_ext()])?;
        server.send(0, &list![kind::USER_JOIN_GROUP, "bob", "blue", map! { 2 => 60 }])?;
        spreads(server, 0, &group_broadcast("blue", &[], &[], "bob"), &mut all, [&[], &["bob"], &[]]).await?;
        server.send(0, &list![kind::USER_LEAVE_GROUP, "bob", Value::Nil, no_ext()])?;
        for group in ["red", "blue"] {
            spreads(server, 0, &group_broadcast(group, &[], &[], "out"), &mut all, [&[]; 3]).await?;
        }
        server.quiet(0).await
    });
}

#[test]
fn existence_of_groups_connections_and_users_is_told() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let all = crowd(&mut scene).await?;
        let (id, server) = (all[2].id.clone(), &mut scene.server);
        acked(server, 0, &list![kind::CHECK_GROUP, "red", 1, no_ext()], 1, NOT_FOUND).await?;
        acked(server, 0, &list![kind::JOIN_GROUP_WITH_ACK, &id, "red", 2, no_ext()], 2, OK).await?;
        acked(server, 1, &list![kind::CHECK_GROUP, "red", 3, no_ext()], 3, OK).await?;
        acked(server, 1, &list![kind::CHECK_CONNECTION, &id, 4, no_ext()], 4, OK).await?;
        acked(server, 1, &list![kind::CHECK_CONNECTION, "nobody", 5, no_ext()], 5, NOT_FOUND).await?;
        acked(server, 0, &list![kind::CHECK_USER, "ann", 6, no_ext()], 6, OK).await?;
        acked(server, 0, &list![kind::CHECK_USER, "dan", 7, no_ext()], 7, NOT_FOUND).await?;
        server.quiet(0).await
    });
}

#[test]
fn members_of_a_group_are_listed_page_by_page() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let all = crowd(&mut scene).await?;
        let server = &mut scene.server;
        for (ack_id, member) in (1..).zip(&all) {
            let join = list![kind::JOIN_GROUP_WITH_ACK, &member.id, "red", ack_id, no_ext()];
            acked(server, 0, &join, ack_id, OK).await?;
        }
        let (mut listed, mut token) = (Vec::new(), Value::Nil);
        for ack_id in 10..13 {
            let query = list![kind::GROUP_MEMBER_QUERY, no_ext(), "red", ack_id, 2, token.clone()];
            let (status, payload) = ack(server, 0, &query, ack_id).await?;
            ensure!(status == OK, "{status}");
            let page = message(payload.as_bytes().context("a payload")?)?;
            let Value::List(members) = page.at(0).clone() else { anyhow::bail!("{page:?}") };
            ensure!(members.len() <= 2, "{page:?}");
            listed.extend(members);
            token = page.at(1).clone();
            if token == Value::Nil {
                break;
            }
        }
        let mut expected: Vec<_> =
            all.iter().zip(["ann", "bob", "ann"]).map(|(member, user)| list![&member.id, user]).collect();
        let by_text = |value: &Value| format!("{value:?}");
        listed.sort_by_key(by_text);
        expected.sort_by_key(by_text);
        ensure!(listed == expected, "{listed:?} instead of {expected:?}");
        Ok(())
    });
}

#[test]
fn a_client_and_its_app_server_end_a_connection_as_documented() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let all = crowd(&mut scene).await?;
        let [first, second, third] = all.try_into().map_err(|_| anyhow::anyhow!("three"))?;
        // The client leaves: its app server is informed once.
        first.socket.close().await?;
        let (place, closed) = scene.server.expect(kind::CLOSE_CONNECTION).await?;
        ensure!(place == first.home && closed.at(1).as_text() == Some(&first.id), "{closed:?}");
        ensure!(closed.at(2).as_text().unwrap_or_default().is_empty() && closed.at(3) == &no_ext(), "{closed:?}");
        // The app server closes the client: earlier data is flushed, and nothing comes back.
        let last = frame_of(TARGET, "the last");
        scene.server.send(second.home, &connection_data(&second.id, &last, data::INVOCATION))?;
        scene.server.send(second.home, &close_connection(&second.id, Value::from("time to go")))?;
        let ending = second.socket.ending().await?;
        ensure!(ending.binary.starts_with(&last), "{ending:?}");
        scene.server.quiet(second.home).await?;
        // Closed through another server connection: its own server connection is informed.
        let other = 1 - third.home;
        scene.server.send(other, &close_connection(&third.id, Value::from("managed")))?;
        let (place, closed) = scene.server.expect(kind::CLOSE_CONNECTION).await?;
        ensure!(place == third.home && closed.at(1).as_text() == Some(&third.id), "{closed:?}");
        third.socket.ending().await?;
        // Unknown id: no effect.
        scene.server.send(0, &close_connection("nobody", Value::Nil))?;
        scene.server.quiet(0).await
    });
}

fn frame_of(target: &str, text: &str) -> Vec<u8> {
    crate::frame::packed_invocation(target, text)
}

#[test]
fn connections_are_closed_by_id_user_group_and_hub_with_acks() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let closes = |id: &str, user: &str, ack| {
            [
                list![kind::CLOSE_CONNECTION_WITH_ACK, id, "go", ack, no_ext()],
                list![kind::CLOSE_USER_CONNECTIONS, user, "go", ack, list![], no_ext()],
                list![kind::CLOSE_GROUP_CONNECTIONS, "red", "go", ack, list![], no_ext()],
                list![kind::CLOSE_CONNECTIONS_WITH_ACK, "go", ack, list![], no_ext()],
            ]
        };
        for (ack_id, way) in (1..).zip(0..4) {
            let member = scene.join_as("ann").await?;
            let join = list![kind::JOIN_GROUP_WITH_ACK, &member.id, "red", 100, no_ext()];
            acked(&mut scene.server, 0, &join, 100, OK).await?;
            let close = closes(&member.id, "ann", ack_id)[way].clone();
            scene.server.send(0, &close)?;
            // The ack and the client's end arrive in either order.
            for wanted in [kind::ACK, kind::CLOSE_CONNECTION] {
                let is_it =
                    |_, event: &Event| matches!(event, Event::Frame(frame) if crate::frame::kind_of(frame) == wanted);
                let (_, event) = scene.server.find(is_it).await?;
                let Event::Frame(frame) = event else { anyhow::bail!("{event:?}") };
                ensure!(
                    wanted != kind::ACK || (frame.at(1).as_int(), frame.at(2).as_int()) == (Some(ack_id), Some(OK)),
                    "{frame:?} answers {close:?}"
                );
            }
            member.socket.ending().await?;
        }
        // Excluded connections stay; unknown users have none.
        let mut member = scene.join_as("ann").await?;
        let but = list![kind::CLOSE_USER_CONNECTIONS, "ann", "go", 9, list![&member.id], no_ext()];
        scene.server.send(0, &but)?;
        scene.server.expect(kind::ACK).await?;
        scene.reaches(&mut member, "still here").await?;
        scene.server.quiet(0).await
    });
}

fn invocation_with_id(id: &str) -> String {
    format!("{{\"type\":1,\"invocationId\":\"{id}\",\"target\":\"Question\",\"arguments\":[]}}\u{1e}")
}

fn completion(id: &str) -> String {
    format!("{{\"type\":3,\"invocationId\":\"{id}\",\"result\":42}}\u{1e}")
}

#[test]
fn client_results_come_back_to_the_app_server_that_asked() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut member = scene.join_as("ann").await?;
        let asked = invocation_with_id("i-1");
        let ask = |id: &str, server: &str, invocation: &str| {
            list![
                kind::CLIENT_INVOCATION,
                format!("{id}-i"),
                id,
                server,
                map! { "json" => invocation.as_bytes() },
                no_ext()
            ]
        };
        // Its own client: the response arrives as ordinary data, and an empty completion drops the entry.
        scene.server.send(member.home, &ask(&member.id, "server-a", &asked))?;
        ensure!(member.socket.next_record().await?["target"] == "Question");
        member.socket.send_text(completion("i-1")).await?;
        let (_, answer) = scene.server.expect(kind::CONNECTION_DATA).await?;
        ensure!(answer.at(2).as_bytes() == Some(completion("i-1").as_bytes()), "{answer:?}");
        let done = list![
            kind::CLIENT_COMPLETION,
            format!("{}-i", member.id),
            &member.id,
            "server-a",
            "json",
            b"".as_slice(),
            map! { 3 => "json" }
        ];
        scene.server.send(member.home, &done)?;
        scene.server.quiet(member.home).await?;
        let mut other = Scripted::dial(&scene.dial_in, HUB, "server-b", 1).await?;
        other.send(0, &ask(&member.id, "server-b", &asked))?;
        let (_, told) = scene.server.expect(kind::CLIENT_INVOCATION).await?;
        ensure!(told.at(1).as_text() == Some(&format!("{}-i", member.id)), "{told:?}");
        ensure!(told.at(2).as_text() == Some(&member.id) && told.at(3).as_text() == Some("server-b"), "{told:?}");
        ensure!(member.socket.next_record().await?["target"] == "Question");
        member.socket.send_text(completion("i-1")).await?;
        scene.server.expect(kind::CONNECTION_DATA).await?;
        let done = list![
            kind::CLIENT_COMPLETION,
            format!("{}-i", member.id),
            &member.id,
            "server-a",
            "json",
            completion("i-1").as_bytes(),
            map! { 3 => "json" }
        ];
        scene.server.send(member.home, &done)?;
        let (_, answered) = other.expect(kind::CLIENT_COMPLETION).await?;
        ensure!(answered.at(1).as_text() == Some(&format!("{}-i", member.id)), "{answered:?}");
        ensure!(answered.at(5).as_bytes() == Some(completion("i-1").as_bytes()), "{answered:?}");
        // Unknown client.
        other.send(0, &ask("nobody", "server-b", &asked))?;
        let (_, failed) = other.expect(kind::ERROR_COMPLETION).await?;
        ensure!(failed.at(1).as_text() == Some("nobody-i"), "{failed:?}");
        // It leaves before it answers.
        other.send(0, &ask(&member.id, "server-b", &asked))?;
        scene.server.expect(kind::CLIENT_INVOCATION).await?;
        let id = member.id.clone();
        drop(member);
        let (_, failed) = other.expect(kind::ERROR_COMPLETION).await?;
        ensure!(failed.at(1).as_text() == Some(&format!("{id}-i")), "{failed:?}");
        Ok(())
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
