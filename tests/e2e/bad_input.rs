//! Bad input: the sender gets the official error text and close, both processes keep running, other clients are not
//! affected.

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::raw::{
    JSON_HANDSHAKE, MESSAGE_PACK_HANDSHAKE, RawClient, answer_to_garbage, rest_after, upgraded_socket,
};
use trunkline_tests::harness::scenario::{Fixture, run_test};

const MESSAGE_MAX_BYTES: usize = 32 * 1024;
const MALFORMED: &str = "An unexpected error occurred during connection handshake.";
const CANCELED: &str = "Handshake was canceled.";
const CLOSED: &str = "Connection closed with an error.";

/// Fleet with clients on the same proxy that must not be affected.
struct BadInputScene {
    app: AppServer,
    proxy: Proxy,
    witnesses: Vec<Client>,
}

impl BadInputScene {
    async fn open(fixture: &Fixture, agents: &Agents<'_>) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&app).await?;
        let mut witnesses = Vec::new();
        for kind in [Kind::JsJson, Kind::JsMessagePack] {
            witnesses.push(agents.client(kind, &proxy.url("/sends")).subscribe(&["Fence"]).open().await?);
        }
        Ok(Self { app, proxy, witnesses })
    }

    /// Checks that no process has restarted and that the witnesses are served.
    async fn assert_undisturbed(mut self) -> Result<()> {
        assert!(self.app.process.is_running());
        assert!(self.proxy.process.is_running());
        self.witnesses[0].invoke("Fence", json!([1])).await?;
        for witness in &mut self.witnesses {
            assert_eq!(witness.expect("Fence").await?, [1]);
            assert_eq!(witness.invoke("ConnectionId", json!([])).await?, witness.connection_id()?);
        }
        Ok(())
    }
}

/// Runs a test, and checks the witnesses at the end.
fn run_undisturbed(body: impl AsyncFnOnce(&BadInputScene) -> Result<()>) {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let scene = BadInputScene::open(fixture, &agents).await?;
        body(&scene).await?;
        scene.assert_undisturbed().await
    });
}

/// Sends frames as the first data on a new WebSocket, and expects a handshake error.
async fn assert_handshake_fails(scene: &BadInputScene, path: &str, first: &str, text: &str) -> Result<()> {
    let mut client = RawClient::open(scene.proxy.address(), path).await?;
    client.send_text(first).await?;
    let ending = client.ending().await?;
    let shown = &first[..first.len().min(80)];
    assert_eq!(ending.messages()?, [json!({ "error": text })], "after {shown:?}");
    assert_eq!(ending.code, Some(1000), "after {shown:?}");
    Ok(())
}

#[test]
fn a_bad_hub_handshake_is_answered_with_the_official_text() {
    run_undisturbed(async |scene| {
        let oversized = "x".repeat(MESSAGE_MAX_BYTES + 1);
        let version = "The server does not support version 9 of the 'json' protocol.";
        let cases = [
            ("{\"protocol\":\"xyz\",\"version\":1}\u{1e}", "The protocol 'xyz' is not supported."),
            ("{\"protocol\":\"json\",\"version\":9}\u{1e}", version),
            ("not json\u{1e}", MALFORMED),
            ("\u{1e}", MALFORMED),
            ("[]\u{1e}", MALFORMED),
            ("{\"protocol\":\"json\"}\u{1e}", MALFORMED),
            ("{\"version\":1}\u{1e}", MALFORMED),
            ("{\"protocol\":7,\"version\":\"1\"}\u{1e}", MALFORMED),
            ("{\"type\":6}\u{1e}", MALFORMED),
            (oversized.as_str(), CANCELED),
        ];
        try_join_all(cases.map(|(first, text)| assert_handshake_fails(scene, "/sends", first, text))).await?;
        Ok(())
    });
}

#[test]
fn a_late_or_missing_hub_handshake_ends_the_connection() {
    run_undisturbed(async |scene| {
        assert_handshake_fails(scene, "/hasty", "{\"protocol\":\"json\",", CANCELED).await?;
        let silent = RawClient::open(scene.proxy.address(), "/hasty").await?;
        let ending = silent.ending().await?;
        assert_eq!(ending.messages()?, [json!({ "error": CANCELED })]);
        assert_eq!(ending.code, Some(1000));
        // A disconnect before the handshake is not an error.
        let gone = RawClient::open(scene.proxy.address(), "/sends").await?;
        assert_eq!(gone.close().await?.code, Some(1000));
        drop(RawClient::open(scene.proxy.address(), "/sends").await?);
        Ok(())
    });
}

#[test]
fn a_handshake_may_come_in_pieces_in_any_frame_type_and_with_messages_behind_it() {
    run_undisturbed(async |scene| {
        let mut client = RawClient::open(scene.proxy.address(), "/sends").await?;
        let call = "{\"type\":1,\"invocationId\":\"1\",\"target\":\"Add\",\"arguments\":[40,2]}\u{1e}";
        let all = format!("{{\"more\":[1],\"version\":1,\"protocol\":\"JSON\"}}\u{1e}{call}{call}");
        for piece in all.as_bytes().chunks(7) {
            client.send_binary(piece.to_vec()).await?;
        }
        assert_eq!(client.next_record().await?, json!({}));
        for _ in 0..2 {
            assert_eq!(client.next_record().await?["result"], 42);
        }
        Ok(())
    });
}

fn echo_of_size(bytes: usize) -> String {
    let frame = |padding: &str| {
        format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Length\",\"arguments\":[\"{padding}\"]}}\u{1e}")
    };
    frame(&"x".repeat(bytes - frame("").len()))
}

#[test]
fn a_message_may_have_32_kib_and_no_more() {
    run_undisturbed(async |scene| {
        let mut client = RawClient::join(scene.proxy.address(), "/sends").await?;
        client.send_text(echo_of_size(MESSAGE_MAX_BYTES)).await?;
        assert!(client.next_record().await?["result"].as_u64().unwrap() > 32_000);
        client.send_text(echo_of_size(MESSAGE_MAX_BYTES + 1)).await?;
        assert_closed_with_error(client).await?;
        // The limit also applies to a message in many small frames and to a message without an end.
        let mut client = RawClient::join(scene.proxy.address(), "/sends").await?;
        for _ in 0..=MESSAGE_MAX_BYTES / 1024 {
            client.send_text("x".repeat(1024)).await?;
        }
        assert_closed_with_error(client).await
    });
}

async fn assert_closed_with_error(client: RawClient) -> Result<()> {
    let ending = client.ending().await?;
    assert_eq!(ending.messages()?, [json!({ "type": 7, "error": CLOSED, "allowReconnect": true })]);
    assert_eq!(ending.code, Some(1000));
    Ok(())
}

#[test]
fn malformed_json_closes_its_sender() {
    run_undisturbed(async |scene| {
        let deep = format!("{{\"type\":1,\"target\":\"Length\",\"arguments\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for message in [
            "nonsense",
            "",
            "{}",
            "[]",
            "7",
            "{\"type\":\"one\"}",
            "{\"type\":1,\"target\":\"Length\",\"arguments\":[\"x\"]",
            "{\"type\":1,\"arguments\":[]}",
            "{\"type\":1,\"target\":\"Length\"}",
            "{\"type\":1,\"target\":\"Length\",\"arguments\":{}}",
            "{\"type\":1,\"target\":\"Length\",\"arguments\":[\"\\u12\"]}",
            &deep,
        ] {
            let mut client = RawClient::join(scene.proxy.address(), "/sends").await?;
            client.send_text(format!("{message}\u{1e}")).await?;
            let ending = client.ending().await?;
            let expected = [json!({ "type": 7, "error": CLOSED, "allowReconnect": true })];
            assert_eq!(ending.messages()?, expected, "after {message:?}");
        }
        Ok(())
    });
}

#[test]
fn malformed_message_pack_closes_its_sender() {
    run_undisturbed(async |scene| {
        let close = [&[0x25, 0x93, 0x07, 0xd9, 0x20], CLOSED.as_bytes(), &[0xc3]].concat();
        let cases: [&[u8]; 8] = [
            &[0xff; 6],                                  // a length of more than five bytes
            &[0xff, 0xff, 0xff, 0xff, 0x07],             // a length far beyond the limit
            &[0x01, 0xc1],                               // the byte that is never used
            &[0x01, 0x90],                               // no type
            &[0x02, 0x91, 0xa0],                         // a type that is no number
            &[0x00],                                     // nothing at all
            &[0x03, 0x95, 0x01, 0x80],                   // ends within the array
            &[0x06, 0x95, 0x01, 0x80, 0xc0, 0x07, 0x90], // a target that is no string
        ];
        for bytes in cases {
            let mut client = RawClient::open(scene.proxy.address(), "/sends").await?;
            client.send_text(MESSAGE_PACK_HANDSHAKE).await?;
            client.send_binary(bytes.to_vec()).await?;
            let ending = client.ending().await?;
            let after_handshake = ending.binary.strip_prefix(b"{}\x1e").unwrap_or(&ending.binary);
            assert_eq!(after_handshake, close, "after {bytes:02x?}");
        }
        Ok(())
    });
}

#[test]
fn message_pack_sends_with_unreadable_arguments_are_dropped() {
    run_undisturbed(async |scene| {
        let mut client = RawClient::open(scene.proxy.address(), "/sends").await?;
        client.send_text(MESSAGE_PACK_HANDSHAKE).await?;
        let unreadable: [&[u8]; 2] = [
            &[0x08, 0x96, 0x01, 0x80, 0xc0, 0xa1, 0x78, 0xc0, 0x90], // nil
            &[0x0a, 0x95, 0x01, 0x80, 0xc0, 0xa1, 0x78, 0xdd, 0xff, 0xff, 0xff], // an array beyond the message
        ];
        for bytes in unreadable {
            client.send_binary(bytes.to_vec()).await?;
        }
        let call = [&[0x0d, 0x96, 0x01, 0x80, 0xa1], &b"1\xa3Add"[..], &[0x92, 0x01, 0x02, 0x90]].concat();
        client.send_binary(call).await?;
        let mut read = Vec::new();
        let completion = [0x07, 0x95, 0x03, 0x80, 0xa1, b'1', 0x03, 0x03];
        while !read.ends_with(&completion) {
            read.extend_from_slice(&client.next_message().await?.into_data());
        }
        Ok(())
    });
}

#[test]
fn messages_of_a_newer_protocol_are_skipped() {
    run_undisturbed(async |scene| {
        let mut client = RawClient::join(scene.proxy.address(), "/sends").await?;
        let unknown = "{\"type\":99,\"anything\":[1]}\u{1e}{\"type\":6}\u{1e}";
        let stray = "{\"type\":2,\"invocationId\":\"x\",\"item\":1}\u{1e}{\"type\":5,\"invocationId\":\"x\"}\u{1e}";
        let call = "{\"type\":1,\"invocationId\":\"1\",\"target\":\"Add\",\"arguments\":[1,2],\"newer\":{}}\u{1e}";
        client.send_text(format!("{unknown}{stray}{call}")).await?;
        assert_eq!(client.next_record().await?["result"], 3);
        Ok(())
    });
}

#[test]
fn frames_that_break_the_web_socket_protocol_end_their_socket() {
    run_undisturbed(async |scene| {
        let handshake = JSON_HANDSHAKE.as_bytes();
        let unmasked = [&[0x81, u8::try_from(handshake.len())?], handshake].concat();
        let endless = [b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".as_slice(), &[b'x'; 40_000]].concat();
        let frames: [&[u8]; 8] = [
            &unmasked,
            &endless,                            // a length beyond all limits, and a beginning of so much
            b"\x8f\x80\0\0\0\0",                 // a reserved opcode
            b"\xf1\x80\0\0\0\0",                 // reserved bits
            b"\x89\xfe\xff\xff\0\0\0\0",         // a control frame that is too long
            b"\x80\x80\0\0\0\0",                 // the rest of a message that never began
            b"\x81\x84\0\0\0\0\xff\xfe\xff\x1e", // text that is no UTF-8
            b"GET / HTTP/1.1\r\n\r\n",
        ];
        // Each frame is sent once before the hub handshake and once after it.
        let mask = [0x81, 0x80 | u8::try_from(handshake.len())?, 0, 0, 0, 0];
        let starts = [Vec::new(), [&mask, handshake].concat()];
        // Concurrently, because the proxy gives each client some seconds to answer its close.
        let endings = starts.iter().flat_map(|start| frames.map(|frame| [start, frame].concat())).map(async |bytes| {
            let socket = upgraded_socket(scene.proxy.address(), "/sends").await?;
            rest_after(socket, &bytes).await
        });
        try_join_all(endings).await?;
        Ok(())
    });
}

#[test]
fn garbage_on_the_http_ports_is_answered_or_dropped() {
    run_undisturbed(async |scene| {
        let endless_header = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 1 << 20]].concat();
        let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
        let inputs: [&[u8]; 5] = [
            b"\0\x01\x02\x03\xff\xfe\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS client's hello",
            b"NONSENSE\r\n\r\n",
            &endless_header,
            many_headers.as_bytes(),
        ];
        for address in [scene.proxy.address(), scene.proxy.admin(), scene.app.address()] {
            for input in inputs {
                answer_to_garbage(address, input).await?;
            }
        }
        Ok(())
    });
}
