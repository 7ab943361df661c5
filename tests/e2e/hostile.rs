//! Hostile input at the client port: a clear status, a counter, no second request, and no effect on other clients.

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_protocol::token::ConnectionToken;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::http_client::{ask, post};
use trunkline_tests::harness::raw::{RawClient, answer_to_garbage};
use trunkline_tests::harness::scenario::{Fixture, run_test, until};
use trunkline_tests::harness::token::{of_user, signed};

const NEGOTIATE: &str = "/bench/negotiate?negotiateVersion=1";
const SMUGGLED: &str = "POST /smuggled/negotiate HTTP/1.1\r\nHost: b\r\n\r\n";
const HALF_SENT: usize = 200;

struct HostileScene {
    _app: AppServer,
    proxy: Proxy,
    healthy: RawClient,
}

impl HostileScene {
    async fn open(fixture: &Fixture, flags: &[&str]) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], flags).await?;
        let healthy = RawClient::join(proxy.address(), "/bench").await?;
        Ok(Self { _app: app, proxy, healthy })
    }

    async fn counted(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.proxy.metrics().await?.sum(name, labels))
    }

    async fn reached(&self, limit: &str) -> Result<f64> {
        self.counted("trunkline_limits_reached_total", &[("limit", limit)]).await
    }

    async fn negotiated(&self) -> Result<String> {
        let negotiated = post(self.proxy.address(), NEGOTIATE).await?.json()?;
        Ok(negotiated["connectionToken"].as_str().context("no token")?.to_owned())
    }

    async fn status_of_connect(&self, token: &str) -> Result<u16> {
        let opened = RawClient::try_open(self.proxy.address(), &format!("/bench?id={token}")).await?;
        Ok(opened.map_or_else(|refusal| refusal.status, |_| 101))
    }

    async fn assert_undisturbed(mut self) -> Result<()> {
        assert!(self.proxy.process.is_running());
        assert_eq!(self.healthy.call("Echo", json!(["still here"])).await?["result"], "still here");
        Ok(())
    }
}

fn run_scene(flags: &[&str], body: impl AsyncFnOnce(&HostileScene) -> Result<()>) {
    run_test(async |fixture| {
        let scene = HostileScene::open(fixture, flags).await?;
        body(&scene).await?;
        scene.assert_undisturbed().await
    });
}

/// Status codes of all answers on one connection.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer).into_owned();
    text.split("HTTP/1.1 ").skip(1).map(|rest| rest.get(..3).and_then(|code| code.parse().ok()).unwrap()).collect()
}

/// Request heads with a smuggled request behind them, and the expected statuses.
fn smuggling_set() -> Vec<(&'static str, String, Vec<u16>)> {
    let post = |headers: &str| format!("POST {NEGOTIATE} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let refused = |name, head: String| (name, head, vec![400]);
    // With an unambiguous length the first request is answered, and the connection is closed after it.
    let alone = |name, head: String| (name, head, vec![200]);
    let old = |headers: &str| format!("POST {NEGOTIATE} HTTP/1.0\r\nHost: a\r\n{headers}\r\n");
    vec![
        refused("two lengths", post("Content-Length: 0\r\nContent-Length: 5\r\n")),
        refused("a list of lengths", post("Content-Length: 0, 5\r\n")),
        refused("a signed length", post("Content-Length: +5\r\n")),
        refused("a negative length", post("Content-Length: -1\r\n")),
        refused("a length in hex", post("Content-Length: 0x5\r\n")),
        refused("no length at all", post("Content-Length:\r\n")),
        alone("length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
        alone("chunks and length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n"),
        refused("chunks not last", post("Transfer-Encoding: chunked, identity\r\n")),
        refused("no such coding", post("Transfer-Encoding: xchunked\r\n")),
        refused("two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")),
        refused("chunks in HTTP/1.0", old("Transfer-Encoding: chunked\r\n")),
        alone("a chunk of no size", post("Transfer-Encoding: chunked\r\n") + "zz\r\n"),
        alone("a chunk too large", post("Transfer-Encoding: chunked\r\n") + "ffffffffffffffffff\r\n"),
        alone("a chunk line by a bare LF", post("Transfer-Encoding: chunked\r\n") + "1\nx\n0\n\n"),
        alone("a chunk longer than told", post("Transfer-Encoding: chunked\r\n") + "1\r\nxxxx\r\n0\r\n\r\n"),
        refused("a folded header", post("X: a\r\n Transfer-Encoding: chunked\r\n")),
        refused("a space before the colon", post("Content-Length : 5\r\n")),
        refused("a bare CR", post("X: a\rTransfer-Encoding: chunked\r\n")),
        refused("a NUL", post("X: a\0b\r\n")),
        refused("two hosts", post("Host: b\r\n")),
        refused("a host with a path", format!("POST {NEGOTIATE} HTTP/1.1\r\nHost: evil.com/path?x=\r\n\r\n")),
        refused("an empty host", format!("POST {NEGOTIATE} HTTP/1.1\r\nHost:\r\n\r\n")),
        refused(
            "another host in the target",
            format!("POST http://evil.example{NEGOTIATE} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        refused("a user in the target", format!("POST http://u@a{NEGOTIATE} HTTP/1.1\r\nHost: a\r\n\r\n")),
        refused("a nominated host", post("Connection: host\r\n")),
        refused("a nominated cookie", post("Connection: close, Cookie\r\nCookie: a=1\r\n")),
        ("another coding", post("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n", vec![501]),
        ("TRACE", "TRACE /page HTTP/1.1\r\nHost: a\r\n\r\n".into(), vec![405]),
        refused("no host", format!("POST {NEGOTIATE} HTTP/1.1\r\nContent-Length: 0\r\n\r\n")),
        refused("no such version", format!("POST {NEGOTIATE} HTTP/9.9\r\nHost: a\r\n\r\n")),
        refused("two spaces", format!("POST  {NEGOTIATE}  HTTP/1.1\r\nHost: a\r\n\r\n")),
    ]
}

#[test]
fn no_second_request_is_smuggled_in() {
    run_scene(&[], async |scene| {
        let mut refused = 0.0;
        for (name, head, expected) in smuggling_set() {
            let answer = answer_to_garbage(scene.proxy.address(), format!("{head}{SMUGGLED}").as_bytes()).await?;
            assert_eq!(statuses(&answer), expected, "{name}: {}", String::from_utf8_lossy(&answer));
            refused += f64::from(u8::from(expected != [200]));
        }
        // The last request is counted when its connection ends, after its answer.
        until(async || {
            let counted = scene.counted("trunkline_requests_malformed_total", &[]).await?;
            Ok((counted >= refused).then_some(()))
        })
        .await?;
        assert_eq!(scene.counted("trunkline_requests_malformed_total", &[]).await?, refused);
        Ok(())
    });
}

#[test]
fn what_is_odd_but_sound_is_one_request() {
    // The keep-alive timeout closes the connection after these requests.
    run_scene(&["--keep-alive-timeout", "1"], async |scene| {
        for request in [
            format!("POST http://a{NEGOTIATE} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("POST {NEGOTIATE} HTTP/1.1\nHost: a\n\n"),
            format!("\r\nPOST {NEGOTIATE} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
            format!("POST {NEGOTIATE} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;x=y\r\n\r\n"),
        ] {
            let answer = answer_to_garbage(scene.proxy.address(), request.as_bytes()).await?;
            assert_eq!(statuses(&answer), [200], "{request:?}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    });
}

#[test]
fn many_half_sent_heads_are_ended_and_others_are_served() {
    run_test(async |fixture| {
        let mut scene = HostileScene::open(fixture, &["--header-timeout", "2"]).await?;
        let half = format!("POST {NEGOTIATE} HTTP/1.1\r\nHost: a\r\nX-Half");
        let address = scene.proxy.address().to_owned();
        let open = async |_: usize| {
            let mut socket = TcpStream::connect(&address).await?;
            socket.write_all(half.as_bytes()).await?;
            anyhow::Ok(socket)
        };
        let sockets = try_join_all((0..HALF_SENT).map(open)).await?;
        for number in 0..20 {
            assert_eq!(scene.healthy.call("Echo", json!([number])).await?["result"], number);
            assert_eq!(post(scene.proxy.address(), NEGOTIATE).await?.status, StatusCode::OK);
        }
        for mut socket in sockets {
            let mut rest = Vec::new();
            drop(socket.read_to_end(&mut rest).await);
            assert_eq!(String::from_utf8_lossy(&rest), "");
        }
        until(async || Ok((scene.reached("head_time").await? >= HALF_SENT as f64).then_some(()))).await?;
        scene.assert_undisturbed().await
    });
}

#[test]
fn whatever_is_too_large_is_refused() {
    run_scene(&["--body-max-bytes", "1000"], async |scene| {
        let head = |more: &str| format!("POST {NEGOTIATE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n");
        let long = "x".repeat(40_000);
        let cases = [
            (head(&format!("X: {long}\r\n")), 431),
            (format!("POST {NEGOTIATE}&x={long} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 431),
            (head(&"a: b\r\n".repeat(200)), 431),
            (head(&"a: b\r\n".repeat(97)), 431),
            (head(&format!("{long}: b\r\n")), 431),
            (head("Content-Length: 1001\r\n"), 413),
            (head("Content-Length: 99999999999999999999\r\n"), 400),
        ];
        for (request, status) in &cases {
            let answer = answer_to_garbage(scene.proxy.address(), request.as_bytes()).await?;
            assert_eq!(statuses(&answer), [*status], "{}", &request[..request.len().min(80)]);
        }
        assert_eq!(scene.reached("head_size").await?, 5.0);
        assert_eq!(scene.reached("body_size").await?, 1.0);
        let mut large = RawClient::join(scene.proxy.address(), "/bench").await?;
        large.send_text("x".repeat(64 * 1024)).await?;
        large.ending().await?;
        assert_eq!(scene.reached("message_size").await?, 1.0);
        Ok(())
    });
}

#[test]
fn tokens_that_are_no_good_open_nothing() {
    run_scene(&[], async |scene| {
        let keys = AccessKeys::new(vec![AccessKey::new(ACCESS_KEY)?])?;
        let foreign = AccessKeys::new(vec![AccessKey::random()])?;
        let sound = scene.negotiated().await?;
        let mut expired = ConnectionToken::open(&sound, &keys)?;
        expired.connect_before = 1_000;
        let mut bad = vec![
            expired.seal(&keys),
            ConnectionToken::open(&sound, &keys)?.seal(&foreign),
            format!("{sound}A"),
            "A".repeat(9_000),
            "%00%ff".into(),
            "..%2f..".into(),
        ];
        bad.extend([1, 10, sound.len() / 2, sound.len() - 1].map(|length| sound[..length].to_owned()));
        let refused = scene.counted("trunkline_requests_refused_total", &[]).await?;
        for token in &bad {
            assert_eq!(scene.status_of_connect(token).await?, 404, "{token}");
        }
        // A second attach, and an id that has ended.
        let client = RawClient::join(scene.proxy.address(), &format!("/bench?id={sound}")).await?;
        assert_eq!(scene.status_of_connect(&sound).await?, 409);
        client.close().await?;
        until(async || Ok((scene.status_of_connect(&sound).await? == 404).then_some(()))).await?;
        let now_refused = scene.counted("trunkline_requests_refused_total", &[]).await?;
        assert!(now_refused - refused >= bad.len() as f64 + 2.0);
        Ok(())
    });
}

#[test]
fn users_of_other_keys_are_nobody() {
    run_scene(&[], async |scene| {
        let sound = of_user(ACCESS_KEY, "ann")?;
        let unsigned = format!("{}.", sound.rsplit_once('.').context("no JWT")?.0);
        let bad = [
            of_user("the key of some other fleet", "ann")?,
            signed(ACCESS_KEY, &json!({ "nameid": "ann", "exp": 1_000 }))?,
            signed(ACCESS_KEY, &json!({ "nameid": "ann", "nbf": 99_999_999_999_u64 }))?,
            sound[..sound.len() - 2].to_owned(),
            unsigned,
            "nonsense".into(),
        ];
        for token in bad {
            let bearer = format!("Bearer {token}");
            let answer = ask(scene.proxy.address(), Method::POST, NEGOTIATE, &[("authorization", &bearer)]).await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token}");
            let query = format!("/bench?access_token={token}");
            assert_eq!(RawClient::try_open(scene.proxy.address(), &query).await?.unwrap_err().status, 401, "{token}");
        }
        Ok(())
    });
}

#[test]
fn the_fleets_own_paths_and_marks_are_not_for_clients() {
    run_scene(&["--path-prefix", "/realtime"], async |scene| {
        for path in [
            "/.trunkline/manifest",
            "/.TrunkLine/link?hub=bench",
            "/.trunkline",
            "/.trunkline/../bench",
            "/%2etrunkline/manifest",
            "//.trunkline/manifest",
            "/realtime/.trunkline/manifest",
        ] {
            for method in [Method::GET, Method::POST] {
                let answer = ask(scene.proxy.address(), method, path, &[]).await?;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
            }
        }
        // Headers that only nodes may set are ignored.
        let spoofed = [("x-trunkline-forward", "1"), ("x-trunkline-remote", "6.6.6.6:6"), ("asrs-migrate-from", "x")];
        let opened = RawClient::try_open_with(scene.proxy.address(), "/bench", &spoofed).await?;
        let mut client = opened.ok().context("refused")?;
        client.shake_hands().await?;
        let me = client.call("WhoAmI", json!([])).await?;
        assert!(me["result"]["remoteAddress"].as_str().context("no address")?.starts_with("127.0.0.1:"), "{me}");
        let foreign = [("origin", "https://evil.example")];
        let refusal = RawClient::try_open_with(scene.proxy.address(), "/bench", &foreign).await?.unwrap_err();
        assert_eq!(refusal.status, 403);
        Ok(())
    });
}
