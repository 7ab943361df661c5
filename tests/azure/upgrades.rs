//! Upgrades, tokens and handshakes that the node accepts or refuses.

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use http::Method;
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::Message;
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::http_client::ask;
use trunkline_tests::harness::scenario::{run_test, run_waiting_test};
use trunkline_tests::harness::sockets::free_address;

use crate::dial_in::{DialIn, KEY, client_token, server_token, signed};
use crate::frame::{frame, framed, kind, kind_of, message, no_ext, ping, take_frame};
use crate::scene::{HUB, Scene};
use crate::scripted::{ConnectionType, Dial, Scripted, handshake_request};
use crate::value::{Value, list};

fn audience(of: &str) -> Json {
    json!({ "nameid": "server-a", "aud": of })
}

/// Dial for [`HUB`] with another token.
fn dial(token: String) -> Result<Dial> {
    Ok(Dial { token, ..Dial::of(HUB, "server-a")? })
}

async fn status(dial_in: &DialIn, dial: &Dial) -> Result<u16> {
    Ok(dial.upgrade(dial_in.address()).await?.map_or_else(|status| status, |_| 101))
}

async fn refuses_tokens(dial_in: &DialIn) -> Result<()> {
    let right = audience(&format!("http://127.0.0.1/server/?hub={HUB}"));
    let with = |claim: &str, value: Json| {
        let mut claims = right.clone();
        claims[claim] = value;
        signed(KEY, &claims)
    };
    let good = signed(KEY, &right)?;
    let (head, rest) = good.split_once('.').context("a dot")?;
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", rest.split_once('.').context("a dot")?.0);
    let now = trunkline_tests::harness::token::in_seconds(0)?;
    let wrong = [
        ("of another key", signed("another-key-0123456789abcdefghABCDEFGHIJKLMN", &right)?),
        ("expired", with("exp", json!(now - 3600))?),
        ("not yet valid", with("nbf", json!(now + 3600))?),
        ("without an end", {
            let claims = json!({ "nameid": "server-a", "aud": right["aud"], "exp": null });
            signed(KEY, &claims)?
        }),
        ("of a client", client_token(HUB, &json!({}))?),
        ("of another hub", server_token("other", "server-a")?),
        ("of another path", with("aud", json!(format!("http://127.0.0.1/serverless/?hub={HUB}")))?),
        ("without an audience", with("aud", json!(null))?),
        ("unsigned", unsigned),
        ("cut off", head.to_owned()),
        ("empty", String::new()),
    ];
    for (what, token) in wrong {
        let status = status(dial_in, &dial(token)?).await?;
        ensure!(status == 401, "a token that is {what} is answered with {status}");
    }
    Ok(())
}

async fn refuses_clients(scene: &mut Scene) -> Result<()> {
    let now = trunkline_tests::harness::token::in_seconds(0)?;
    let right = client_token(HUB, &json!({ "nameid": "ann" }))?;
    for (what, hub, token) in [
        ("of another hub", HUB, client_token("other", &json!({}))?),
        ("for another hub", "other", right.clone()),
        ("of an app server", HUB, server_token(HUB, "server-a")?),
        ("expired", HUB, client_token(HUB, &json!({ "exp": now - 3600 }))?),
        ("nothing", HUB, String::new()),
    ] {
        let answer = scene.dial_in.negotiate(hub, "", &token).await?;
        ensure!(answer.status == 401, "{what}: {answer:?}");
        let refusal = scene.dial_in.client(&format!("/client/?hub={hub}"), &token).await?;
        let status = refusal.map_or_else(|refusal| refusal.status, |_| 101);
        ensure!(status == 401, "{what}: {status}");
    }
    // A repeated hub is invalid; other parameters may repeat.
    let answer = scene.dial_in.negotiate(HUB, &format!("&hub={HUB}"), &right).await?;
    ensure!(answer.status == 400, "{answer:?}");
    let twice = format!("/client/?hub={HUB}&hub={HUB}");
    let refusal = scene.dial_in.client(&twice, &right).await?.err().context("refused")?;
    ensure!(refusal.status == 400, "{refusal:?}");
    let more = "&useStatefulReconnect=true&negotiateVersion=1&useStatefulReconnect=true";
    let answer = scene.dial_in.negotiate(HUB, more, &right).await?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(answer.json()?.get("useStatefulReconnect").is_none_or(|granted| granted == false), "{answer:?}");
    scene.server.quiet(0).await
}

async fn refuses_hubs(dial_in: &DialIn) -> Result<()> {
    let good = Dial::of(HUB, "server-a")?;
    let path = |path: &str| Dial { path: path.into(), ..good.clone() };
    ensure!(status(dial_in, &path(&format!("/server/?hub={HUB}&cid=1&hub={HUB}"))).await? == 400);
    ensure!(status(dial_in, &path("/server/?hub=&cid=1")).await? >= 400);
    ensure!(status(dial_in, &path("/server/?hub=other&cid=1")).await? == 401);
    // Requests that are no WebSockets, and ASP.NET's own SDK, get a proper response.
    let bearer = format!("Bearer {}", good.token);
    let answer = ask(dial_in.address(), Method::GET, &good.path, &[("authorization", &bearer)]).await?;
    ensure!(answer.status.is_client_error(), "{answer:?}");
    ensure!(status(dial_in, &path("/aspnetserver/?hub=bench&cid=1")).await? == 404);
    Ok(())
}

async fn takes_names_of_any_case(dial_in: &DialIn) -> Result<()> {
    let mut server = Scripted::dial(dial_in, "app_bench", "server-a", 1).await?;
    // As `{application}_{hub}`, which the SDK writes in lower case.
    let member = crate::scene::join(dial_in, &mut server, "json", &json!({})).await?;
    ensure!(member.home == 0);
    Ok(())
}

#[test]
fn without_a_key_of_ones_own_the_paths_are_the_apps() {
    run_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let app = fleet.app(App::Web).await?;
        let mut node = fleet.proxy_of(&free_address()?, &free_address()?, &[app.address()], &[])?;
        node.ready().await?;
        let token = server_token(HUB, "server-a")?;
        let dial = dial(token)?;
        let refused = dial.upgrade(node.address()).await?.err().context("refused")?;
        ensure!(refused == 404, "the app has no such page: {refused}");
        Ok(())
    });
}

/// Sends these bytes first and returns what arrives until the node answers or closes.
async fn first(dial_in: &DialIn, bytes: Vec<u8>) -> Result<Option<Value>> {
    let mut socket =
        Dial::of(HUB, "server-a")?.upgrade(dial_in.address()).await?.map_err(|status| anyhow::anyhow!("{status}"))?;
    socket.send(Message::binary(bytes)).await?;
    let mut rest = Vec::new();
    loop {
        if let Some(answer) = take_frame(&mut rest)? {
            return Ok(Some(message(&answer)?));
        }
        match socket.next().await {
            Some(Ok(Message::Binary(more))) => rest.extend_from_slice(&more),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
            Some(Ok(_)) => {}
        }
    }
}

async fn takes_each_form_of_a_handshake(dial_in: &DialIn) -> Result<()> {
    for request in [
        list![1, 1],
        list![1, 1, 0, ""],
        list![1, 1, 0, "", 1],
        list![1, 1, 0, "", 0, no_ext()],
        list![1, 1, 0, "", 0, no_ext(), true],
        list![1, 1, 2, "", 0, no_ext(), false],
        list![1, 1, 0, Value::Nil, 0, no_ext(), false, "more", "than known"],
    ] {
        let answer = first(dial_in, frame(&request)).await?.with_context(|| format!("{request:?}"))?;
        ensure!(kind_of(&answer) == kind::HANDSHAKE_RESPONSE, "{answer:?} to {request:?}");
        ensure!(answer.at(1).as_text().unwrap_or_default().is_empty(), "{answer:?} to {request:?}");
        ensure!(answer.at(2) == &no_ext(), "{answer:?}");
        ensure!(answer.at(3).as_text().is_some_and(|id| !id.is_empty()), "{answer:?} names no id");
    }
    Ok(())
}

async fn takes_a_handshake_in_pieces(dial_in: &DialIn) -> Result<()> {
    let mut socket =
        Dial::of(HUB, "server-a")?.upgrade(dial_in.address()).await?.map_err(|status| anyhow::anyhow!("{status}"))?;
    for byte in frame(&handshake_request(ConnectionType::Default, 0)) {
        socket.send(Message::binary(vec![byte])).await?;
    }
    let answer = socket.next().await.context("an answer")??;
    ensure!(answer.is_binary() && answer.into_data().get(2) == Some(&2), "no handshake response");
    Ok(())
}

async fn refuses_other_handshakes(dial_in: &DialIn) -> Result<()> {
    for request in [list![1, 2, 0, "", 0, no_ext(), false], list![1, 0, 0, "", 0, no_ext(), false]] {
        let answer = first(dial_in, frame(&request)).await?.context("a text for the app's log")?;
        let text = answer.at(1).as_text().unwrap_or_default();
        ensure!(kind_of(&answer) == kind::HANDSHAKE_RESPONSE && text.contains("version"), "{answer:?}");
    }
    // Anything else before a handshake, or not even a frame: the node refuses it with a text or closes, but never
    // accepts.
    for bytes in [
        frame(&ping(&[])),
        frame(&ping(&["status", "1"])),
        frame(&list![kind::BROADCAST_DATA, list![], no_ext(), no_ext()]),
        framed(b"\xc1"),
        framed(b"\x91"),
        vec![0xff; 6],
        vec![0xff, 0xff, 0xff, 0xff, 0x07],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let answer = first(dial_in, bytes.clone()).await?;
        let is_success = answer.as_ref().is_some_and(|answer| {
            kind_of(answer) == kind::HANDSHAKE_RESPONSE && answer.at(1).as_text().unwrap_or_default().is_empty()
        });
        ensure!(!is_success, "{bytes:?} is answered with {answer:?}");
    }
    Ok(())
}

async fn refuses_connections_for_other_nodes(scene: &mut Scene) -> Result<()> {
    let on_demand = handshake_request(ConnectionType::OnDemand, 0);
    let mut dial = Dial::of(HUB, "server-a")?;
    // A target is the boot of a node, never its name. Tests of fleets dial the targets that nodes ask for.
    let path = dial.path.clone();
    for target in ["no-such-node", crate::dial_in::NODE] {
        dial.path = format!("{path}&target={target}");
        let text = scene.server.refused(scene.dial_in.address(), &dial, &on_demand).await?;
        ensure!(text.contains("another node"), "{text}");
    }
    scene.dial_in.linked(1).await
}

#[test]
fn upgrades_tokens_and_handshakes_are_taken_or_refused_by_their_rules() {
    run_waiting_test(async |fixture| {
        let dial_in = DialIn::open(fixture).await?;
        takes_names_of_any_case(&dial_in).await?;
        refuses_tokens(&dial_in).await?;
        refuses_hubs(&dial_in).await?;
        takes_each_form_of_a_handshake(&dial_in).await?;
        takes_a_handshake_in_pieces(&dial_in).await?;
        refuses_other_handshakes(&dial_in).await
    });
}

#[test]
fn clients_and_connections_for_others_are_refused_beside_an_app_server() {
    run_test(async |fixture| {
        let mut scene = Scene::open(fixture, 1).await?;
        refuses_clients(&mut scene).await?;
        refuses_connections_for_other_nodes(&mut scene).await
    });
}
