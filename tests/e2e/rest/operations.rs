//! Every operation, sent to each node and to a balancer in front of both.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::{Agents, Client, ClientAnswer, Kind};
use trunkline_tests::harness::fleet::ACCESS_KEY;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::token;

use super::{RestScene, TWO, delivered};
use crate::fleet::TARGET;

/// Paths of sends, and the recipients among the four clients.
fn sends(ids: &[String]) -> Result<Vec<(String, [bool; 4])>> {
    let [first, _, third, last] = ids else { anyhow::bail!("there are four clients") };
    let row = |path: String, reached: [u8; 4]| (path, reached.map(|one| one == 1));
    Ok(vec![
        row("/:send".into(), [1, 1, 1, 1]),
        row(format!("/:send?api-version=2022-06-01&excluded={first}&excluded={last}"), [0, 1, 1, 0]),
        row("/groups/group-1/:send".into(), [0, 0, 1, 1]),
        row(format!("/groups/group-1/:send?excluded={third}"), [0, 0, 0, 1]),
        row("/groups/none/:send".into(), [0; 4]),
        row("/users/user-0/:send".into(), [1, 1, 0, 0]),
        row("/users/nobody/:send".into(), [0; 4]),
        row(format!("/connections/{third}/:send"), [0, 0, 1, 0]),
        row("/connections/nobody/:send".into(), [0; 4]),
        row("/api/v1/hubs/bench".into(), [1, 1, 1, 1]),
        row("/api/v1/hubs/bench/users/user-1".into(), [0, 0, 1, 1]),
    ])
}

/// A MessagePack map of hub protocols to framed invocations of [`TARGET`].
fn encoded(text: &str) -> Result<Bytes> {
    let json = format!("{}\u{1e}", json!({ "type": 1, "target": TARGET, "arguments": [text] }));
    let mut call = Vec::new();
    rmp::encode::write_array_len(&mut call, 6)?;
    rmp::encode::write_uint(&mut call, 1)?;
    rmp::encode::write_map_len(&mut call, 0)?;
    rmp::encode::write_nil(&mut call)?;
    rmp::encode::write_str(&mut call, TARGET)?;
    rmp::encode::write_array_len(&mut call, 1)?;
    rmp::encode::write_str(&mut call, text)?;
    rmp::encode::write_array_len(&mut call, 0)?;
    call.insert(0, u8::try_from(call.len())?);
    let mut body = Vec::new();
    rmp::encode::write_map_len(&mut body, 2)?;
    for (protocol, message) in [("json", json.as_bytes()), ("messagepack", &call)] {
        rmp::encode::write_str(&mut body, protocol)?;
        rmp::encode::write_bin(&mut body, message)?;
    }
    Ok(body.into())
}

#[test]
fn each_send_reaches_just_those_that_it_is_for_whichever_node_is_asked() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let mut scene = RestScene::open(fixture, &agents).await?;
        let (back_ends, sends) = (scene.back_ends()?, sends(&scene.ids)?);
        let mut due = vec![Vec::new(); scene.clients.len()];
        for (asked, back_end) in back_ends.iter().enumerate() {
            for (path, reached) in &sends {
                let text = format!("{asked} {path}");
                let delivery = back_end.send(path, TARGET, &json!(text)).await?;
                let clients = reached.iter().filter(|one| **one).count();
                ensure!(delivery == delivered(2, clients), "{path} at {asked} is answered with {delivery}");
                for (due, _) in due.iter_mut().zip(reached).filter(|(_, reached)| **reached) {
                    due.push(text.clone());
                }
            }
            let body = encoded("encoded")?;
            let answer = back_end.ask_with(Method::POST, "/:send", "application/octet-stream", body).await?;
            ensure!((answer.status == 202) && answer.json()? == delivered(2, 4), "{answer:?}");
            due.iter_mut().for_each(|due| due.push("encoded".into()));
        }
        let any = back_ends.last().context("a back end")?;
        scene.got(any, &due).await
    });
}

#[test]
fn a_batch_reaches_each_client_of_its_targets_once_and_has_a_result_for_each_message() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let mut scene = RestScene::open(fixture, &agents).await?;
        let (back_ends, ids) = (scene.back_ends()?, scene.ids.clone());
        let mut due = vec![Vec::new(); scene.clients.len()];
        for (asked, back_end) in back_ends.iter().enumerate() {
            let message = |name: &str, targets: Value| {
                let mut message = targets;
                message["target"] = json!(TARGET);
                message["arguments"] = json!([format!("{asked} {name}")]);
                message
            };
            let overlapping = json!({ "groups": ["group-0", "none"], "users": ["user-0", "user-1"], "connections": [ids[0], ids[3]] });
            let body = json!([
                message("many", overlapping),
                message("some", json!({ "groups": ["group-0", "group-1"], "excluded": [ids[0], ids[2]] })),
                message("all", json!({ "all": true })),
            ]);
            let answer = back_end.ask(Method::POST, "/:sendBatch", &body).await?;
            let results = answer.json()?["results"].clone();
            ensure!(answer.status == 200, "{answer:?}");
            let expected = [4, 2, 4].map(|clients| delivered(2, clients));
            ensure!(results == json!(expected), "{results}");
            for (client, due) in due.iter_mut().enumerate() {
                let names = if client % 2 == 0 { vec!["many", "all"] } else { vec!["many", "some", "all"] };
                due.extend(names.iter().map(|name| format!("{asked} {name}")));
            }
        }
        let any = back_ends.last().context("a back end")?;
        scene.got(any, &due).await
    });
}

#[test]
fn a_misspelt_or_missing_member_is_refused_and_nothing_is_sent() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let mut scene = RestScene::open(fixture, &agents).await?;
        let back_end = scene.back_ends()?.swap_remove(0);
        for (path, body, problem) in [
            ("/:send", json!({ "target": TARGET, "argumnets": [1] }), "unknown member \"argumnets\""),
            ("/:send", json!({ "target": TARGET }), "the arguments are missing"),
            ("/:execute", json!([{ "type": "JoinGroup", "group": "a", "user": "b" }]), "unknown member \"user\""),
        ] {
            let answer = back_end.ask(Method::POST, path, &body).await?;
            ensure!(
                answer.status == 400 && answer.json()?["message"].as_str().is_some_and(|it| it.contains(problem)),
                "{answer:?}"
            );
        }
        let due = vec![Vec::new(); scene.clients.len()];
        scene.got(&back_end, &due).await
    });
}

/// Sends a request, and checks the status and the error code.
async fn asks(back_end: &BackEnd, method: Method, path: &str, expected: (u16, &str)) -> Result<()> {
    let answer = back_end.ask(method.clone(), path, &Value::Null).await?;
    let code = answer.header("x-ms-error-code").unwrap_or_default();
    ensure!((answer.status.as_u16(), code) == expected, "{method} {path}: {answer:?}");
    ensure!(answer.header("x-trunkline-missing-nodes").is_none(), "{answer:?}");
    Ok(())
}

/// Members of a group by pages of one, as ids and users.
async fn members(back_end: &BackEnd, group: &str) -> Result<BTreeSet<(String, String)>> {
    let (mut found, mut pages) = (BTreeSet::new(), 0);
    let mut path = format!("/groups/{group}/connections?maxpagesize=1&api-version=2024-12-01");
    loop {
        let page = back_end.ask(Method::GET, &path, &Value::Null).await?.json()?;
        for member in page["value"].as_array().context("a list")? {
            let [id, user] = ["connectionId", "userId"].map(|name| member[name].as_str().unwrap_or_default());
            ensure!(found.insert((id.into(), user.into())), "{member} is listed twice");
        }
        pages += 1;
        ensure!(pages < 100, "the list has no end");
        let Some(next) = page["nextLink"].as_str() else { return Ok(found) };
        // The link is an absolute URL at the requested address.
        let (_, rest) = next.split_once("/api/").with_context(|| format!("{next} is no URL of the data plane"))?;
        path = format!("/api/{rest}");
    }
}

#[test]
fn existence_groups_and_lists_are_of_the_whole_fleet() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let mut scene = RestScene::open(fixture, &agents).await?;
        for back_end in scene.back_ends()? {
            let (here, there) = (scene.id(0)?, scene.id(3)?);
            for method in [Method::HEAD, Method::GET] {
                asks(&back_end, method.clone(), &format!("/connections/{here}"), (200, "")).await?;
                asks(&back_end, method.clone(), &format!("/connections/{there}"), (200, "")).await?;
                asks(&back_end, method.clone(), "/users/user-1", (200, "")).await?;
                asks(&back_end, method.clone(), "/groups/group-0", (200, "")).await?;
                let absent = "/connections/nobody";
                asks(&back_end, method.clone(), absent, (404, "Warning.Connection.NotExisted")).await?;
                asks(&back_end, method.clone(), "/users/nobody", (404, "Warning.User.NotExisted")).await?;
                asks(&back_end, method, "/groups/none", (404, "Warning.Group.NotExisted")).await?;
            }
            for id in [here, there] {
                asks(&back_end, Method::PUT, &format!("/groups/red/connections/{id}"), (200, "")).await?;
            }
            let expected = [(here, "user-0"), (there, "user-1")].map(|(id, user)| (id.to_owned(), user.to_owned()));
            let listed = members(&back_end, "red").await?;
            ensure!(listed == BTreeSet::from(expected), "{listed:?}");
            asks(&back_end, Method::DELETE, &format!("/groups/red/connections/{here}"), (200, "")).await?;
            ensure!(back_end.send("/groups/red/:send", TARGET, &json!("red")).await? == delivered(2, 1));
            asks(&back_end, Method::DELETE, &format!("/connections/{there}/groups"), (200, "")).await?;
            ensure!(back_end.send("/groups/red/:send", TARGET, &json!("nobody")).await? == delivered(2, 0));
            ensure!(members(&back_end, "group-1").await?.len() == 1);
            asks(&back_end, Method::PUT, &format!("/groups/group-1/connections/{there}"), (200, "")).await?;
            let absent = "/groups/red/connections/nobody";
            asks(&back_end, Method::PUT, absent, (404, "Error.Connection.NotExisted")).await?;
        }
        let red = vec!["red".to_owned(); 3];
        let any = scene.back_ends()?.pop().context("a back end")?;
        scene.got(&any, &[Vec::new(), Vec::new(), Vec::new(), red]).await
    });
}

#[test]
fn users_are_in_groups_with_connections_that_come_later_at_any_node() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let scene = RestScene::open(fixture, &agents).await?;
        for (asked, back_end) in scene.back_ends()?.iter().enumerate() {
            let user = format!("later-{asked}");
            let path = format!("/users/{user}/groups/blue");
            asks(back_end, Method::HEAD, &path, (404, "Info.User.NotInGroup")).await?;
            asks(back_end, Method::PUT, &format!("{path}?ttl=60"), (200, "")).await?;
            asks(back_end, Method::HEAD, &path, (200, "")).await?;
            let mut clients = Vec::new();
            for (node, kind) in scene.fleet.nodes.iter().zip(Kind::JS) {
                let builder = agents.client(kind, &node.url("/bench")).subscribe(&[TARGET]);
                clients.push(builder.access_token(&token::of_user(ACCESS_KEY, &user)?).open().await?);
            }
            scene.fleet.settles(&json!({ "group": "blue" }), clients.len()).await?;
            ensure!(back_end.send("/groups/blue/:send", TARGET, &json!("blue")).await? == delivered(2, 2));
            for client in &mut clients {
                ensure!(client.expect(TARGET).await? == [json!("blue")]);
            }
            asks(back_end, Method::DELETE, &path, (204, "")).await?;
            asks(back_end, Method::HEAD, &path, (404, "Info.User.NotInGroup")).await?;
            ensure!(back_end.send("/groups/blue/:send", TARGET, &json!("gone")).await? == delivered(2, 0));
            asks(back_end, Method::PUT, &format!("/groups/green/users/{user}?ttl=0"), (200, "")).await?;
            ensure!(back_end.send("/groups/green/:send", TARGET, &json!("green")).await? == delivered(2, 2));
            asks(back_end, Method::DELETE, &format!("/users/{user}/groups"), (204, "")).await?;
            ensure!(back_end.send("/groups/green/:send", TARGET, &json!("gone")).await? == delivered(2, 0));
        }
        Ok(())
    });
}

#[test]
fn clients_are_invoked_and_answer_in_either_hub_protocol() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let scene = RestScene::open(fixture, &agents).await?;
        let mut clients = Vec::new();
        for (node, kind) in scene.fleet.nodes.iter().zip(Kind::JS) {
            let value = ClientAnswer::Value(json!({ "is": [7, null, "å"] }));
            let builder = agents.client(kind, &node.url("/bench")).answer("Ask", &value);
            clients.push(builder.answer("Throw", &ClientAnswer::Error("not now".into())).open().await?);
        }
        for back_end in scene.back_ends()? {
            for client in &clients {
                let path = format!("/connections/{}/:invoke", client.connection_id()?);
                let asked = back_end.ask(Method::POST, &path, &json!({ "target": "Ask", "arguments": ["?"] })).await?;
                let expected = json!({ "result": { "is": [7, null, "å"] }, "protocol": client.kind().protocol() });
                ensure!((asked.status == 200) && asked.json()? == expected, "{:?}: {asked:?}", client.kind());
                let failed = back_end.ask(Method::POST, &path, &json!({ "target": "Throw", "arguments": [] })).await?;
                ensure!((failed.status == 502) && failed.body.contains("not now"), "{failed:?}");
            }
            let ask = json!({ "target": "Ask", "arguments": [] });
            let nobody = back_end.ask(Method::POST, "/connections/nobody/:invoke", &ask).await?;
            ensure!(nobody.status == 404, "{nobody:?}");
        }
        Ok(())
    });
}

#[test]
fn a_token_that_is_asked_for_leads_its_client_in() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let scene = RestScene::open(fixture, &agents).await?;
        for back_end in scene.back_ends()? {
            let path = "/:generateToken?userId=ann&minutesToExpire=5&api-version=2022-11-01";
            let told = back_end.ask(Method::POST, path, &Value::Null).await?.json()?;
            let [url, token] = ["url", "token"].map(|name| told[name].as_str().unwrap_or_default().to_owned());
            let client = agents.client(Kind::JsJson, &url).access_token(&token).open().await?;
            let who = client.invoke("WhoAmI", json!([])).await?;
            ensure!(who["userId"] == "ann", "{who}");
        }
        Ok(())
    });
}

/// Error text of a client's close.
async fn closed_with(client: &mut Client) -> Result<String> {
    client.closed().await?.context("no reason")
}

#[test]
fn clients_are_closed_one_by_one_by_user_by_group_and_all() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let mut scene = RestScene::open(fixture, &agents).await?;
        let (back_ends, ids) = (scene.back_ends()?, scene.ids.clone());
        let [first, other, any] = back_ends.as_slice() else { anyhow::bail!("there are three") };
        // Each request goes to the node that does not have the client.
        let path = format!("/connections/{}?reason=time%20to%20go", ids[0]);
        asks(other, Method::DELETE, &path, (200, "")).await?;
        ensure!(closed_with(&mut scene.clients[0]).await?.contains("time to go"));
        asks(any, Method::DELETE, &path, (404, "Warning.Connection.NotExisted")).await?;
        let spared = format!("/users/user-1/:closeConnections?reason=user&excluded={}", ids[3]);
        asks(first, Method::POST, &spared, (204, "")).await?;
        ensure!(closed_with(&mut scene.clients[2]).await?.contains("user"));
        asks(other, Method::POST, "/groups/group-0/:closeConnections", (204, "")).await?;
        scene.clients[1].closed().await?;
        asks(any, Method::HEAD, "/groups/group-0", (404, "Warning.Group.NotExisted")).await?;
        asks(first, Method::POST, "/:closeConnections?reason=all", (204, "")).await?;
        ensure!(closed_with(&mut scene.clients[3]).await?.contains("all"));
        for (place, back_end) in back_ends.iter().enumerate() {
            ensure!(back_end.send("/:send", TARGET, &json!("nobody")).await? == delivered(TWO.len(), 0), "{place}");
        }
        Ok(())
    });
}

#[test]
fn lists_and_counts_cover_both_nodes_and_do_without_a_frozen_one_only_where_the_caller_accepts_it() {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let scene = RestScene::open(fixture, &agents).await?;
        let get = async |back_end: &BackEnd, path: &str| back_end.ask(Method::GET, path, &Value::Null).await;
        let row = |name: &str, value: &str| json!({ name: value, "connections": 2 });
        let users = [row("userId", "user-0"), row("userId", "user-1")];
        for back_end in scene.back_ends()? {
            let page = get(&back_end, "/users").await?.json()?;
            ensure!(page == json!({ "value": users, "nextLink": null }), "{page}");
            let page = get(&back_end, "/users/user-1/groups").await?.json()?;
            ensure!(page["value"] == json!([row("group", "group-1")]), "{page}");
            let page = get(&back_end, "/connections?maxpagesize=3").await?.json()?;
            ensure!(
                page["value"].as_array().is_some_and(|rows| rows.len() == 3) && !page["nextLink"].is_null(),
                "{page}"
            );
            for (list, number) in [("/connections", 4), ("/users", 2), ("/groups", 2), ("/users/user-0/connections", 2)]
            {
                let count = get(&back_end, &format!("{list}/:count")).await?.json()?;
                ensure!(count == json!({ "count": number, "isEstimate": false }), "{list}: {count}");
            }
        }
        let [first, _, _] = &scene.back_ends()?[..] else { anyhow::bail!("there are three back ends") };
        scene.fleet.nodes[1].process.signal(Signal::Freeze).await?;
        let whole = get(first, "/users").await?;
        ensure!(whole.status == 503 && whole.header("x-trunkline-missing-nodes") == Some("node-b"), "{whole:?}");
        let partly = get(first, "/users?partial=true").await?;
        ensure!(partly.header("x-trunkline-missing-nodes") == Some("node-b"), "{partly:?}");
        ensure!(partly.json()?["value"] == json!([users[0]]), "{partly:?}");
        scene.fleet.nodes[1].process.signal(Signal::Thaw).await
    });
}
