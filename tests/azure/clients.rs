//! Redirected clients: the information for their app server, and the handling of their bytes.

use anyhow::{Context, ensure};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use trunkline_tests::harness::http_client::ask;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

use crate::dial_in::{NODE, client_token};
use crate::frame::{brings, connection_data, data, kind, no_ext};
use crate::scene::{HUB, Scene};
use crate::scripted::Scripted;
use crate::value::{Value, map};

const NAME_IDENTIFIER: &str = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier";
const NAME: &str = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name";
const EMAIL: &str = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress";
const ROLE: &str = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role";

/// Query written by the SDK, after the hub.
const QUERY: &str = "&asrs.op=%2Fbench&user=ann&x=a%20b%26c&negotiateVersion=1&asrs_request_id=0HNQ%3A00000001\
                     &asrs_lang=de&asrs_ui_lang=fr";

#[test]
fn claims_come_by_both_names_and_as_often_as_they_are_there() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let member = scene
            .join(&json!({
                "nameid": "ann",
                "unique_name": "Ann",
                "email": "ann@example.org",
                "role": ["member", "admin"],
                "asrs.s.uid": "user-1",
                "asrs.s.derror": "True",
                "asrs.u.iss": "the app's own",
                "tenant": ["one", "two"],
                "count": 7,
                "nested": { "a": 1 },
            }))
            .await?;
        let claims = member.opened.at(2);
        for (name, values) in [
            (NAME_IDENTIFIER, &["ann"][..]),
            (NAME, &["Ann"]),
            (EMAIL, &["ann@example.org"]),
            (ROLE, &["member", "admin"]),
            ("asrs.s.uid", &["user-1"]),
            ("asrs.s.derror", &["True"]),
            ("asrs.u.iss", &["the app's own"]),
            ("tenant", &["one", "two"]),
            ("count", &["7"]),
            ("iss", &["azure-signalr"]),
            ("nameid", &["ann"]),
            ("unique_name", &["Ann"]),
            ("email", &["ann@example.org"]),
            ("role", &["member", "admin"]),
        ] {
            ensure!(claims.texts(name) == values, "{name}: {:?} in {claims:?}", claims.texts(name));
        }
        Ok(())
    });
}

#[test]
fn headers_query_protocol_address_and_node_of_a_client_come_with_it() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let token = client_token(HUB, &json!({ "nameid": "ann" }))?;
        let path = format!("/client/?hub={HUB}{QUERY}");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-custom", "one"),
            ("x-custom", "two"),
            ("cookie", "session=1; theme=dark"),
            ("asrs-migrate-from", "an-attacker"),
            ("x-forwarded-for", "203.0.113.9"),
        ];
        let mut socket = RawClient::try_open_with(scene.dial_in.address(), &path, &headers)
            .await?
            .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        socket.send_text("{\"protocol\":\"messagepack\",\"version\":1}\u{1e}").await?;
        let (_, _, opened) = scene.server.admit().await?;
        let header = |name: &str| -> Vec<String> {
            let Value::Map(headers) = opened.at(3) else { return Vec::new() };
            let found = headers.iter().find(|(key, _)| key.as_text().is_some_and(|key| key.eq_ignore_ascii_case(name)));
            let Some((_, Value::List(values))) = found else { return Vec::new() };
            values.iter().filter_map(Value::as_text).map(str::to_owned).collect()
        };
        ensure!(header("x-custom") == ["one", "two"], "{opened:?}");
        ensure!(header("cookie") == ["session=1; theme=dark"], "{opened:?}");
        ensure!(header("asrs-instance-id") == [NODE], "{opened:?}");
        ensure!(header("asrs-migrate-from").is_empty(), "only the node moves clients: {opened:?}");
        ensure!(header("user-agent").is_empty(), "it has none: {opened:?}");
        // The app takes the first address as the client's, so the client must not be able to set it.
        ensure!(header("x-forwarded-for").concat().split(',').next() == Some("127.0.0.1"), "{opened:?}");
        let query = opened.at(4).as_text().context("a query")?;
        ensure!(query.starts_with(&format!("?hub={HUB}{QUERY}")), "{query}");
        ensure!(opened.at(5) == &map! { 3 => "messagepack" }, "{opened:?}");
        Ok(())
    });
}

#[test]
fn a_handshake_comes_up_as_it_was_whatever_its_version() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let token = client_token(HUB, &json!({}))?;
        for version in ["0", "2", "2147483647"] {
            let path = format!("/client/?hub={HUB}");
            let mut socket =
                scene.dial_in.client(&path, &token).await?.map_err(|error| anyhow::anyhow!("{error:?}"))?;
            let handshake = format!("{{ \"version\": {version}, \"protocol\": \"json\" }}\u{1e}");
            socket.send_text(handshake.clone()).await?;
            let (place, opened) = scene.server.expect(kind::OPEN_CONNECTION).await?;
            let id = opened.at(1).as_text().context("an id")?.to_owned();
            let (_, first) = scene.server.expect(kind::CONNECTION_DATA).await?;
            ensure!(brings(&first, &id, handshake.as_bytes(), data::HANDSHAKE), "{first:?}");
            // The app refuses it, and the client must receive the refusal before the connection ends.
            let refusal = b"{\"error\":\"version\"}\x1e";
            scene.server.send(place, &connection_data(&id, refusal, data::HANDSHAKE))?;
            scene.server.send(place, &crate::frame::close_connection(&id, Value::from("")))?;
            let ending = socket.ending().await?;
            ensure!(ending.text.as_bytes() == refusal, "{ending:?}");
            scene.server.quiet(place).await?;
        }
        Ok(())
    });
}

#[test]
fn data_of_the_app_server_reaches_the_client_whole_even_from_an_older_sdk() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let mut member = scene.join_as("ann").await?;
        let texts = ["a", "b", "c", "d"]
            .map(|text| format!("{{\"type\":1,\"target\":\"Message\",\"arguments\":[\"{text}\"]}}\u{1e}"));
        // Without a kind, several in one frame, and with a kind.
        let data =
            |bytes: &str, ext: Value| crate::value::list![kind::CONNECTION_DATA, &member.id, bytes.as_bytes(), ext];
        let frames = [data(&texts.concat(), no_ext()), data(&texts[3], map! { 5 => data::INVOCATION })];
        for frame in &frames {
            scene.server.send(0, frame)?;
        }
        for expected in ["a", "b", "c", "d", "d"] {
            let record = member.socket.next_record().await?;
            ensure!(record["arguments"][0] == expected, "{record}");
        }
        Ok(())
    });
}

#[test]
fn a_negotiate_answer_offers_the_transports_that_the_token_allows_and_others_are_refused() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        for (flags, expected) in [
            (json!(null), &["WebSockets", "ServerSentEvents", "LongPolling"][..]),
            (json!("1"), &["WebSockets"]),
            (json!("6"), &["ServerSentEvents", "LongPolling"]),
            (json!("4"), &["LongPolling"]),
        ] {
            let mut claims = json!({ "nameid": "ann" });
            if !flags.is_null() {
                claims["asrs.s.htt"] = flags.clone();
            }
            let answer = scene.dial_in.negotiate(HUB, "", &client_token(HUB, &claims)?).await?.json()?;
            let offered = answer["availableTransports"].as_array().context("transports")?.clone();
            let names: Vec<_> = offered.iter().filter_map(|one| one["transport"].as_str()).collect();
            ensure!(names == expected, "{flags}: {answer}");
            ensure!(answer["connectionId"] != answer["connectionToken"], "the id is no secret: {answer}");
        }
        // Version 0: only the id.
        let token = client_token(HUB, &json!({}))?;
        let bearer = format!("Bearer {token}");
        let path = format!("/client/negotiate?hub={HUB}&negotiateVersion=0");
        let answer =
            ask(scene.dial_in.address(), http::Method::POST, &path, &[("authorization", &bearer)]).await?.json()?;
        ensure!(answer.get("connectionToken").is_none() && answer["connectionId"].is_string(), "{answer}");
        let token = client_token(HUB, &json!({ "asrs.s.htt": "4" }))?;
        let answer = scene.dial_in.negotiate(HUB, "", &token).await?.json()?;
        let secret = answer["connectionToken"].as_str().context("a token")?;
        let path = format!("/client/?hub={HUB}&id={secret}");
        let refusal = scene.dial_in.client(&path, &token).await?.err().context("refused")?;
        ensure!((400..500).contains(&refusal.status), "{refusal:?}");
        scene.server.quiet(0).await
    });
}

#[test]
fn a_sticky_client_comes_to_the_app_server_that_negotiated_it() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 2).await?;
        let mut other = Scripted::dial(&scene.dial_in, HUB, "server-b", 2).await?;
        let mut members = Vec::new();
        for sticky in ["Required", "Preferred", "Required", "Preferred"] {
            let claims = json!({ "asrs.s.sn": "server-b", "asrs.s.ssticky": sticky });
            members.push(crate::scene::join(&scene.dial_in, &mut other, "json", &claims).await?);
        }
        scene.server.quiet(0).await?;
        for member in members {
            member.socket.close().await?;
            other.expect(kind::CLOSE_CONNECTION).await?;
        }
        // Its app server is gone: a client that prefers it gets another one, and a client that requires it gets an
        // error.
        drop(other);
        scene.dial_in.linked_exactly(2).await?;
        let _member = scene.join(&json!({ "asrs.s.sn": "server-b", "asrs.s.ssticky": "Preferred" })).await?;
        let token = client_token(HUB, &json!({ "asrs.s.sn": "server-b", "asrs.s.ssticky": "Required" }))?;
        let answer = scene.dial_in.negotiate(HUB, "", &token).await?;
        if answer.status == 200 {
            let secret = answer.json()?["connectionToken"].as_str().context("a token")?.to_owned();
            if let Ok(mut socket) = scene.dial_in.client(&format!("/client/?hub={HUB}&id={secret}"), &token).await? {
                drop(socket.send(Message::text("{\"protocol\":\"json\",\"version\":1}\u{1e}")).await);
                socket.ending().await?;
            }
        }
        scene.server.quiet(0).await
    });
}

#[test]
fn a_client_whose_login_ends_is_closed_if_its_app_says_so() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        let end = trunkline_tests::harness::token::in_seconds(2)?.to_string();
        let member = scene.join(&json!({ "asrs.s.coae": "true", "asrs.s.aeo": end })).await?;
        let stays = scene.join(&json!({ "asrs.s.aeo": end })).await?;
        member.socket.ending().await?;
        let (_, closed) = scene.server.expect(kind::CLOSE_CONNECTION).await?;
        ensure!(closed.at(1).as_text() == Some(&member.id), "{closed:?}");
        let mut stays = stays;
        scene.reaches(&mut stays, "still here").await
    });
}
