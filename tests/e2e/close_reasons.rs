//! Close reasons have equal names everywhere: in the metrics of node and app server, in the node's log, in `/api/why`
//! and in the app's hook.

mod scene;

use anyhow::{Context, ensure};
use serde_json::json;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::http_transport::CarriedClient;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, MESSAGE_PACK_HANDSHAKE, RawClient, upgraded_socket};
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::tls::Authority;
use trunkline_tests::harness::token::{in_seconds, signed};

use scene::{CloseScene, negotiate, spare_handle};

/// Larger than any client message limit.
const TOO_LONG: usize = 200_000;

/// Client frame with this first byte and a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[test]
fn clients_that_close_or_vanish() {
    run_test(async |fixture| {
        let mut scene = CloseScene::start(fixture, &["--disconnect-timeout", "1"]).await?;
        let (mut client, id) = scene.join("/ends").await?;
        client.send_text("{\"type\":7}\u{1e}").await?;
        scene.closed(&id, "ends", "client_closed").await?;
        let (client, id) = scene.join("/ends").await?;
        client.close().await?;
        scene.closed(&id, "ends", "client_closed").await?;
        let (id, _) = negotiate(&scene.proxy, "/ends").await?;
        ensure!(scene.why(&id).await?.status == 404, "nothing has ended yet");

        let (handle, client, id) = scene.join_with_handle("/ends").await?;
        handle.shutdown(std::net::Shutdown::Write)?;
        scene.closed(&id, "ends", "socket_ended").await?;
        drop((handle, client));
        let (handle, client, id) = scene.join_with_handle("/ends").await?;
        SockRef::from(&handle).set_linger(Some(std::time::Duration::ZERO))?;
        drop((handle, client));
        scene.closed(&id, "ends", "socket_reset").await?;

        let (client, id) = scene.carried("/ends").await?;
        client.delete().await?;
        scene.closed(&id, "ends", "client_closed").await?;
        let (_client, id) = scene.carried("/ends").await?;
        scene.closed(&id, "ends", "polls_stopped").await?;
        let (client, id) = scene.negotiated("/lively").await?;
        let mut events = client.events().await?;
        client.send(JSON_HANDSHAKE).await?;
        events.until("{}").await?;
        drop(events);
        scene.closed(&id, "lively", "socket_ended").await?;

        let (mut client, id) = scene.join("/lively").await?;
        client.send_text("{\"type\":6}\u{1e}").await?;
        scene.closed(&id, "lively", "keep_alive_timeout").await?;
        scene.agree().await
    });
}

#[test]
fn clients_that_break_rules() {
    run_test(async |fixture| {
        let authority = Authority::new(fixture, "causes")?;
        let identity = authority.sign("proxy", &["localhost", "127.0.0.1"])?;
        let (certificate, key) = identity.arguments()?;
        let address = trunkline_tests::harness::sockets::free_address()?;
        let tls = ["--tls-listen", &address, "--tls-cert", certificate, "--tls-key", key];
        let mut scene = CloseScene::start(fixture, &tls).await?;
        let (mut handle, client, id) = scene.join_with_handle("/ends").await?;
        // A reserved bit.
        std::io::Write::write_all(&mut handle, &frame(0xc1, b"x"))?;
        scene.closed(&id, "ends", "websocket_protocol").await?;
        drop(client);
        // The app server detects invalid JSON, the node an incomplete message.
        let (mut client, id) = scene.join("/ends").await?;
        client.send_text("{\"type\":\u{1e}").await?;
        scene.closed(&id, "ends", "hub_protocol").await?;
        let (id, token) = negotiate(&scene.proxy, "/ends").await?;
        let mut client = RawClient::open(scene.proxy.address(), &format!("/ends?id={token}")).await?;
        client.send_text(MESSAGE_PACK_HANDSHAKE).await?;
        client.next_message().await?;
        client.send_binary(vec![0xff; 6]).await?;
        scene.closed(&id, "ends", "hub_protocol").await?;
        let (mut client, id) = scene.join("/ends").await?;
        client.send_text("x".repeat(TOO_LONG)).await?;
        scene.closed(&id, "ends", "message_too_large").await?;
        let (mut client, id) = scene.join_line().await?;
        client.send_text("x".repeat(TOO_LONG)).await?;
        scene.closed_line(&id, "message_too_large").await?;
        let mut client = upgraded_socket(scene.proxy.address(), "/line").await?;
        let id = scene::read_line_id(&mut client).await?;
        tokio::io::AsyncWriteExt::write_all(&mut client, &frame(0x81, &[0xff])).await?;
        scene.closed_line(&id, "text_invalid").await?;

        let stream = std::net::TcpStream::connect(&address)?;
        let mut handle = spare_handle(&stream)?;
        stream.set_nonblocking(true)?;
        let stream = authority.connect_over(TcpStream::from_std(stream)?, "http/1.1").await?;
        let mut client = RawClient::join_over(stream, &address, "/ends").await?;
        let id = scene::id_of(&mut client).await?;
        // TLS record that can't be decrypted.
        std::io::Write::write_all(&mut handle, b"\x17\x03\x03\x00\x14no tls whatever, sir")?;
        scene.closed(&id, "ends", "tls_failed").await?;
        scene.agree().await
    });
}

#[test]
fn clients_that_an_app_server_ends() {
    run_test(async |fixture| {
        let mut scene = CloseScene::start(fixture, &[]).await?;
        let (mut client, id) = scene.join("/ends").await?;
        client.send_text("{\"type\":1,\"target\":\"Abort\",\"arguments\":[]}\u{1e}").await?;
        scene.closed(&id, "ends", "app_closed").await?;
        for (word, cause) in [("close", "app_closed"), ("fail", "app_error"), ("panic", "app_error")] {
            let (mut client, id) = scene.join_line().await?;
            client.send_text(word).await?;
            scene.closed_line(&id, cause).await?;
        }
        let (id, token) = negotiate(&scene.proxy, "/unwelcoming").await?;
        let mut client = RawClient::open(scene.proxy.address(), &format!("/unwelcoming?id={token}")).await?;
        client.send_text(JSON_HANDSHAKE).await?;
        scene.closed_unheard(&id, "unwelcoming", "app_error").await?;
        let ending = signed(ACCESS_KEY, &json!({ "sub": "ann", "exp": in_seconds(2)? }))?;
        let mut client = RawClient::join(scene.proxy.address(), &format!("/ends?access_token={ending}")).await?;
        let id = scene::id_of(&mut client).await?;
        scene.closed(&id, "ends", "token_expired").await?;
        let why = scene.why(&id).await?.json()?;
        assert_eq!(
            (&why["user"], &why["transport"], &why["protocol"]),
            (&json!("ann"), &json!("WebSockets"), &json!("json"))
        );
        scene.agree().await?;

        // A raw connection can't move, so it closes with the last app server.
        let (_client, id) = scene.join_line().await?;
        scene.app.process.signal(Signal::Terminate).await?;
        scene.closed_at_node(&id, "line", "app_stopped").await
    });
}

#[test]
fn links_that_are_lost_and_processes_that_go() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Ends).await?;
        let relay = Relay::start(app.address()).await?;
        let more = ["--resume-window", "1", "--hold-timeout", "1", "--drain-timeout", "6"];
        let mut scene = CloseScene::over(&fleet, app, &relay.address(), &more).await?;
        let (_client, hub_id) = scene.join("/ends").await?;
        let (_line, raw_id) = scene.join_line().await?;
        // The app server loses both clients with its links. The node keeps the hub client until it finds no other app
        // server.
        relay.let_in(false);
        relay.decide(Fate::Cut, usize::MAX);
        scene.closed_at_node(&raw_id, "line", "link_lost").await?;
        scene.closed_at_node(&hub_id, "ends", "no_app_server").await?;
        scene.app.process.wait_for_line(&format!("disconnected {hub_id} link_lost")).await?;

        relay.let_in(true);
        scene.linked().await?;
        let (_client, id) = scene.join("/ends").await?;
        scene.proxy.process.signal(Signal::Terminate).await?;
        scene.app.process.wait_for_line(&format!("disconnected {id} drained")).await?;
        assert_eq!(scene.logged(&id).await?["cause"], "drained");
        scene.proxy.process.ended().await?;

        let mut scene = CloseScene::over(&fleet, scene.app, &relay.address(), &more).await?;
        let (_client, id) = scene.join("/ends").await?;
        scene.proxy.process.kill().await?;
        scene.app.process.wait_for_line(&format!("disconnected {id} link_lost")).await?;
        Ok(())
    });
}

#[test]
fn an_id_that_is_in_use_elsewhere() {
    run_test(async |fixture| {
        let mut scene = CloseScene::start(fixture, &[]).await?;
        let other = Fleet::new(fixture).proxy(&scene.app).await?;
        let (id, token) = negotiate(&scene.proxy, "/ends").await?;
        let _first = RawClient::join(other.address(), &format!("/ends?id={token}")).await?;
        let mut second = RawClient::open(scene.proxy.address(), &format!("/ends?id={token}")).await?;
        second.send_text(JSON_HANDSHAKE).await?;
        scene.closed_at_node(&id, "ends", "id_in_use").await
    });
}

#[test]
fn clients_that_are_refused() {
    run_test(async |fixture| {
        let mut scene = CloseScene::start(fixture, &["--header-timeout", "1"]).await?;
        let address = scene.proxy.address().to_owned();
        let cases = [
            ("/ends", "{\"protocol\":\u{1e}".to_owned(), "handshake_invalid"),
            ("/ends", "{\"protocol\":\"morse\",\"version\":1}\u{1e}".to_owned(), "handshake_unsupported"),
            ("/ends", "x".repeat(TOO_LONG), "handshake_too_large"),
            ("/hasty", String::new(), "handshake_timeout"),
        ];
        for (path, text, cause) in cases {
            let (id, token) = negotiate(&scene.proxy, path).await?;
            let mut client = RawClient::open(&address, &format!("{path}?id={token}")).await?;
            if !text.is_empty() {
                client.send_text(text).await?;
            }
            scene.refused(&id, cause).await?;
        }
        let (id, token) = negotiate(&scene.proxy, "/ends").await?;
        let mut client = RawClient::open(&address, &format!("/ends?id={token}")).await?;
        client.send(Message::Close(None)).await?;
        scene.refused(&id, "client_closed").await?;
        let (id, token) = negotiate(&scene.proxy, "/ends").await?;
        drop(upgraded_socket(&address, &format!("/ends?id={token}")).await?);
        scene.refused(&id, "socket_ended").await?;
        let (id, token) = negotiate(&scene.proxy, "/ends").await?;
        let mut socket = upgraded_socket(&address, &format!("/ends?id={token}")).await?;
        tokio::io::AsyncWriteExt::write_all(&mut socket, &frame(0xc1, b"x")).await?;
        scene.refused(&id, "websocket_protocol").await?;
        scene.agree_about_refusals().await?;

        let (id, token) = negotiate(&scene.proxy, "/ends").await?;
        let path = format!("/ends?id={token}&access_token=nonsense");
        scene.refused_request(&path, &[], 401, Some(&id), "token_refused").await?;
        let (id, token) = negotiate(&scene.proxy, "/ends").await?;
        let origin = [("origin", "https://elsewhere.example")];
        scene.refused_request(&format!("/ends?id={token}"), &origin, 403, Some(&id), "origin_refused").await?;
        scene.refused_request("/ends?id=nonsense", &[], 404, None, "id_unknown").await?;
        let (_, token) = negotiate(&scene.proxy, "/ends").await?;
        let _client = RawClient::join(&address, &format!("/ends?id={token}")).await?;
        scene.refused_request(&format!("/ends?id={token}"), &[], 409, None, "id_used").await?;
        let (_, token) = negotiate(&scene.proxy, "/ends").await?;
        let answer = CarriedClient::with_token(&address, "/ends", &token).refused_events().await?;
        assert_eq!(answer.status, 404);
        assert_eq!(scene.counted("trunkline_requests_refused_total", "transport_refused").await?, 1.0);
        // Incomplete request head.
        let mut slow = TcpStream::connect(&address).await?;
        tokio::io::AsyncWriteExt::write_all(&mut slow, b"GET / HT").await?;
        let _closed = tokio::io::AsyncReadExt::read(&mut slow, &mut [0; 64]).await;
        assert_eq!(scene.counted("trunkline_sockets_refused_total", "head_timeout").await?, 1.0);
        Ok(())
    });
}

#[test]
fn unknown_ids_and_ids_that_live_are_told_apart() {
    run_test(async |fixture| {
        let scene = CloseScene::start(fixture, &[]).await?;
        let (_client, id) = scene.join("/ends").await?;
        let open = scene.why(&id).await?.json().context("an open connection")?;
        assert_eq!((&open["state"], &open["connectionId"]), (&json!("open"), &json!(id)));
        let unknown = scene.why("AAAAAAAAAAAAAAAAAAAAAA").await?;
        assert_eq!((unknown.status.as_u16(), &unknown.json()?["field"]), (404, &json!("connectionId")));
        let long = "x".repeat(17_000);
        let too_long = get(scene.proxy.admin(), &format!("/api/why/{long}")).await?;
        assert_eq!((too_long.status.as_u16(), &too_long.json()?["field"]), (400, &json!("connectionId")));
        Ok(())
    });
}
