//! Malformed, wrong or excessive frames: counted, skipped, and without effect on others.

use anyhow::{Context, ensure};
use tokio_tungstenite::tungstenite::Message;
use trunkline_tests::harness::scenario::run_test;

use crate::frame::{connection_data, data, frame, framed, kind, no_ext, payloads, ping};
use crate::scene::{HUB, Scene, TARGET};
use crate::scripted::Scripted;
use crate::value::{Value, list, map};

#[test]
fn a_malformed_frame_in_a_right_envelope_is_skipped() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        let id = member.id.clone();
        let wrong = [
            list![],
            list!["four"],
            list![Value::Nil],
            list![-1],
            list![kind::CONNECTION_DATA],
            list![kind::CONNECTION_DATA, Value::Nil, b"x".as_slice(), no_ext()],
            list![kind::MULTI_CONNECTION_DATA, Value::Nil, payloads(TARGET, "wrong"), no_ext()],
            list![kind::MULTI_CONNECTION_DATA, list![1, 2], payloads(TARGET, "wrong"), no_ext()],
            list![kind::BROADCAST_DATA, list![], Value::Nil, no_ext()],
            list![kind::BROADCAST_DATA, list![], "payloads", no_ext()],
            list![kind::GROUP_BROADCAST_DATA, Value::Nil, list![], payloads(TARGET, "wrong")],
            list![kind::JOIN_GROUP_WITH_ACK, &id, Value::Nil, 1, no_ext()],
            list![kind::JOIN_GROUP_WITH_ACK, &id],
            list![kind::CLOSE_CONNECTION],
            list![kind::CLIENT_INVOCATION, "i"],
            map! { 1 => 2 },
            Value::from("a text"),
            Value::Nil,
        ];
        for wrong in &wrong {
            scene.server.send(0, wrong)?;
            scene.reaches(&mut member, "still here").await.with_context(|| format!("after {wrong:?}"))?;
        }
        for bytes in
            [&b"\xc1"[..], b"", b"\xdd\xff\xff\xff\xff", b"\x94\x06\xa2c1\xc6\xff\xff\xff\xff", b"\x91\x03\x00\x00"]
        {
            scene.server.send_malformed(0, bytes)?;
            scene.reaches(&mut member, "still here").await.with_context(|| format!("after {bytes:02x?}"))?;
        }
        // Maximum nesting that fits into a frame.
        scene.server.send_malformed(0, &[0x91; 4096])?;
        scene.reaches(&mut member, "still here").await?;
        // An ack may report a bad request; clients must not notice anything.
        scene.server.fence(0).await?;
        scene.receives(&mut member, "and me").await
    });
}

#[test]
fn a_malformed_frame_for_a_client_closes_that_client_alone() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut other = scene.join_as("bob").await?;
        for wrong in [
            |id: &str| list![kind::CONNECTION_DATA, id],
            |id: &str| list![kind::CONNECTION_DATA, id, "text not bytes", no_ext()],
            |id: &str| list![kind::CLIENT_INVOCATION, "i", id],
            |id: &str| list![kind::MULTI_CONNECTION_DATA, list![id], "payloads", no_ext()],
        ] {
            let mut member = scene.join_as("ann").await?;
            let wrong = wrong(&member.id);
            scene.server.send(0, &wrong)?;
            let close = member.socket.next_record().await?;
            let error = close["error"].as_str().context("an error")?;
            ensure!(error.contains("could not be delivered"), "{error} after {wrong:?}");
            ensure!(close["type"] == 7 && close["allowReconnect"] == true, "{close}");
            let (_, closed) = scene.server.expect(kind::CLOSE_CONNECTION).await?;
            ensure!(closed.at(1).as_text() == Some(&member.id), "{closed:?}");
            scene.reaches(&mut other, "still here").await?;
        }
        scene.receives(&mut other, "me too").await
    });
}

#[test]
fn a_wrong_length_ends_the_server_connection_and_nobody_elses() {
    run_test(async |fixture| {
        for bytes in [vec![0xff; 8], vec![0xff, 0xff, 0xff, 0xff, 0x0f], vec![0xff, 0xff, 0xff, 0xff, 0x08, 1]] {
            let mut scene = Scene::open(fixture, 1).await?;
            let mut member = scene.join_as("ann").await?;
            let mut broken = Scripted::dial(&scene.dial_in, HUB, "server-b", 1).await?;
            broken.at(0)?.send_bytes(bytes)?;
            broken.ended(0).await?;
            scene.reaches(&mut member, "still here").await?;
            scene.receives(&mut member, "me too").await?;
        }
        Ok(())
    });
}

#[test]
fn a_text_message_is_no_part_of_the_protocol() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        let mut other = Scripted::dial(&scene.dial_in, HUB, "server-b", 1).await?;
        other.at(0)?.send_message(Message::text("{}"))?;
        other.ended(0).await?;
        scene.reaches(&mut member, "still here").await
    });
}

#[test]
fn ids_of_other_hubs_are_ids_of_nobody() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        let mut foreign = Scripted::dial(&scene.dial_in, "other", "server-b", 1).await?;
        let id = member.id.clone();
        let wrong = [
            crate::scene::to(&[&id], "stolen"),
            connection_data(
                &id,
                b"{\"type\":1,\"target\":\"Message\",\"arguments\":[\"stolen\"]}\x1e",
                data::INVOCATION,
            ),
            list![kind::USER_DATA, "ann", payloads(TARGET, "stolen"), no_ext()],
            list![kind::BROADCAST_DATA, list![], payloads(TARGET, "stolen"), no_ext()],
            list![kind::CLIENT_COMPLETION, "i", &id, "server-b", "json", b"".as_slice(), no_ext()],
            list![kind::FLOW_CONTROL, &id, Value::Fixed(1), Value::Fixed(2), no_ext()],
            crate::frame::close_connection(&id, Value::from("stolen")),
        ];
        for wrong in &wrong {
            foreign.send(0, wrong)?;
        }
        foreign.send(0, &list![kind::JOIN_GROUP_WITH_ACK, &id, "red", 1, no_ext()])?;
        let (_, ack) = foreign.expect(kind::ACK).await?;
        ensure!(ack.at(2) == &Value::Int(2), "{ack:?}");
        foreign.send(0, &list![kind::CHECK_CONNECTION, &id, 2, no_ext()])?;
        let (_, ack) = foreign.expect(kind::ACK).await?;
        ensure!(ack.at(2) == &Value::Int(2), "{ack:?}");
        foreign.quiet(0).await?;
        scene.reaches(&mut member, "still here").await?;
        scene.receives(&mut member, "me too").await
    });
}

#[test]
fn data_for_a_client_of_another_app_server_does_not_reach_it() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        let other = Scripted::dial(&scene.dial_in, HUB, "server-b", 1).await?;
        // An app server may send to clients of its hub (type 7), but raw bytes only over the connection that has the
        // client open.
        let foreign = b"{\"type\":1,\"target\":\"Message\",\"arguments\":[\"stolen\"]}\x1e";
        other.send(0, &connection_data(&member.id, foreign, data::INVOCATION))?;
        other.send(0, &crate::scene::to(&[&member.id], "sent"))?;
        let text = member.text().await?;
        ensure!(text == "sent", "{text}");
        scene.reaches(&mut member, "still here").await
    });
}

#[test]
fn floods_of_requests_for_acks_are_all_answered_in_order_and_others_are_served() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut member = scene.join_as("ann").await?;
        const REQUESTS: i64 = 20_000;
        let flood = 1 - member.home;
        let mut bytes = Vec::new();
        for number in 0..REQUESTS {
            bytes.extend(frame(&list![kind::CHECK_GROUP, "none", number, no_ext()]));
        }
        scene.server.at(flood)?.send_bytes(bytes)?;
        scene.receives(&mut member, "me too").await?;
        for number in 0..REQUESTS {
            let is_ack = |_, event: &crate::scripted::Event| matches!(event, crate::scripted::Event::Frame(frame) if crate::frame::kind_of(frame) == kind::ACK);
            let (place, event) = scene.server.find(is_ack).await?;
            let crate::scripted::Event::Frame(ack) = event else { anyhow::bail!("just found") };
            ensure!(place == flood && ack.at(1) == &Value::Int(number), "{ack:?} at {number}");
        }
        // Unsolicited acks: a service sends acks and receives none.
        for number in 0..1000 {
            scene.server.send(flood, &list![kind::ACK, number, 1, "", no_ext(), Value::Nil])?;
        }
        scene.reaches(&mut member, "still here").await
    });
}

#[test]
fn an_empty_message_and_many_frames_in_one_are_read() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        scene.server.at(0)?.send_bytes(Vec::new())?;
        let texts: Vec<String> = (0..300).map(|number| format!("{number}")).collect();
        let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(&crate::scene::to(&[&member.id], text))).collect();
        // Cut at positions inside frames.
        for piece in bytes.chunks(997) {
            scene.server.at(0)?.send_bytes(piece.to_vec())?;
        }
        for text in &texts {
            let came = member.text().await?;
            ensure!(came == *text, "{came} instead of {text}");
        }
        scene.server.at(0)?.send_bytes([frame(&ping(&[])), framed(&[0x91, 3])].concat())?;
        scene.reaches(&mut member, "still here").await
    });
}
