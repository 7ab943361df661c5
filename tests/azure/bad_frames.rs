//! Malformed, wrong or excessive frames: counted, skipped, and without effect on others.

use anyhow::{Context, ensure};
use tokio_tungstenite::tungstenite::Message;
use trunkline_tests::harness::scenario::run_test;

use crate::frame::{connection_data, data, kind, no_ext, payloads};
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
