//! Negotiation and tokens, with their error responses.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::http_client::{ask, get, post};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

const NODE: &str = "x-trunkline-node";

fn web_sockets() -> Value {
    json!({ "transport": "WebSockets", "transferFormats": ["Text", "Binary"] })
}

#[test]
fn negotiate_speaks_both_versions_and_names_errors() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;

        let first = post(proxy.address(), "/bench/negotiate?negotiateVersion=1").await?;
        assert_eq!(first.status, StatusCode::OK);
        assert!(first.header("content-type").unwrap().starts_with("application/json"));
        assert!(first.header("content-length").is_some());
        let body = first.json()?;
        assert_eq!(body["negotiateVersion"], 1);
        assert_eq!(body["connectionId"].as_str().unwrap().len(), 22);
        assert_ne!(body["connectionId"], body["connectionToken"]);
        assert!(body["availableTransports"].as_array().unwrap().contains(&web_sockets()));

        let zero = post(proxy.address(), "/bench/negotiate").await?.json()?;
        assert_eq!(zero["negotiateVersion"], 0);
        assert!(zero.get("connectionToken").is_none());
        let token = zero["connectionId"].as_str().unwrap();
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)), "{token}");

        for (query, version) in [("NegotiateVersion=1", 1), ("negotiateVersion=7", 1), ("negotiateVersion=0", 0)] {
            let body = post(proxy.address(), &format!("/bench/negotiate?{query}")).await?.json()?;
            assert_eq!(body["negotiateVersion"], version, "{query}");
        }
        let wrong = post(proxy.address(), "/bench/negotiate?negotiateVersion=one").await?;
        assert_eq!(wrong.status, StatusCode::OK);
        assert_eq!(wrong.json()?, json!({ "error": "The client requested a non-integer protocol version." }));

        let stateful = "/bench/negotiate?negotiateVersion=1&useStatefulReconnect=true";
        let body = post(proxy.address(), stateful).await?.json()?;
        assert_ne!(body.get("useStatefulReconnect"), Some(&json!(true)), "it is never granted");
        Ok(())
    });
}

#[test]
fn paths_match_without_regard_to_case_and_unknown_ones_are_404_with_a_body() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--no-pass-through"]).await?;
        assert_eq!(post(proxy.address(), "/BENCH/Negotiate").await?.status, StatusCode::OK);
        assert_eq!(get(proxy.address(), "/bench/negotiate").await?.status, StatusCode::METHOD_NOT_ALLOWED);

        let unknown = post(proxy.address(), "/nowhere/negotiate").await?;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
        assert!(!unknown.body.is_empty());
        let refusal = RawClient::try_open(proxy.address(), "/nowhere").await?.unwrap_err();
        assert_eq!(refusal.status, 404);
        assert!(!refusal.body.is_empty());

        // Internal paths of the fleet are not available to clients.
        assert_eq!(get(proxy.address(), "/.trunkline/manifest").await?.status, StatusCode::NOT_FOUND);
        assert_eq!(get(app.address(), "/.trunkline/manifest").await?.status, StatusCode::NOT_FOUND);
        let private = get(proxy.address(), "/.trunkline/channel").await?;
        assert_eq!(private.status, StatusCode::NOT_FOUND);
        assert!(private.headers.contains_key("x-trunkline-node"), "whoever dials this port for another one reads why");
        assert_eq!(get(app.address(), "/.trunkline/channel").await?.status, StatusCode::UNAUTHORIZED);
        Ok(())
    });
}

#[test]
fn every_answer_names_its_node() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let mut nodes = BTreeSet::new();
        for proxy in &proxies {
            let negotiated = post(proxy.address(), "/bench/negotiate?negotiateVersion=1").await?;
            let node = negotiated.header(NODE).unwrap().to_owned();
            let socket = RawClient::open(proxy.address(), "/bench").await?;
            assert_eq!(socket.answer_headers()[NODE], node.as_str());
            let others = [
                post(proxy.address(), "/nowhere/negotiate").await?,
                get(proxy.address(), "/").await?,
                ask(proxy.address(), Method::DELETE, "/bench", &[]).await?,
            ];
            for answer in others {
                assert_eq!(answer.header(NODE), Some(node.as_str()), "{} {}", answer.status, answer.body);
            }
            nodes.insert(node);
        }
        assert_eq!(nodes.len(), 2);
        Ok(())
    });
}

#[test]
fn a_token_opens_one_connection_at_any_node_with_the_id_it_was_made_for() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let [here, there] = fleet.two_proxies(&app).await?;
        for version in [0, 1] {
            let path = format!("/bench/negotiate?negotiateVersion={version}");
            let negotiated = post(here.address(), &path).await?.json()?;
            let id = negotiated["connectionId"].as_str().unwrap();
            let token = negotiated.get("connectionToken").map_or(id, |token| token.as_str().unwrap());
            let connect = format!("/bench?id={token}");

            let mut client = RawClient::join(there.address(), &connect).await?;
            let completion = client.call("WhoAmI", json!([])).await?;
            assert_eq!(completion["result"]["connectionId"], id, "version {version}");

            let second = RawClient::try_open(there.address(), &connect).await?.unwrap_err();
            assert_eq!(second.status, 409, "{second:?}");
            client.close().await?;
        }
        Ok(())
    });
}

#[test]
fn a_token_that_was_not_made_by_this_fleet_opens_nothing() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let negotiated = post(proxy.address(), "/bench/negotiate?negotiateVersion=1").await?.json()?;
        let token = negotiated["connectionToken"].as_str().unwrap();
        let (start, end) = token.split_at(token.len() / 2);
        let swapped = if end.starts_with('A') { 'B' } else { 'A' };
        let damaged = format!("{start}{swapped}{}", &end[1..]);
        for id in ["nonsense", negotiated["connectionId"].as_str().unwrap(), &damaged] {
            let refusal = RawClient::try_open(proxy.address(), &format!("/bench?id={id}")).await?.unwrap_err();
            assert_eq!((refusal.status, refusal.body.as_str()), (404, "No Connection with that ID"), "{id}");
        }
        // The valid token still works, and an empty token counts as missing.
        RawClient::join(proxy.address(), &format!("/bench?id={token}")).await?;
        RawClient::join(proxy.address(), "/bench?id=").await?;
        Ok(())
    });
}
