//! Identity of a client: id, address, headers and user agree at client, proxy and hub.

use anyhow::Result;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet, Proxy};
use trunkline_tests::harness::http_client::ask;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::token;

#[test]
fn a_connection_has_the_same_id_at_client_and_hub_and_is_reached_by_it() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        let sender = agents.client(Kind::JsJson, &proxies[0].url("/bench")).open().await?;
        for proxy in &proxies {
            for kind in Kind::ALL {
                let builder = agents.client(kind, &proxy.url("/bench")).subscribe(&["Message"]);
                let mut client = builder.open().await?;
                let me = client.invoke("WhoAmI", json!([])).await?;
                assert_eq!(me["connectionId"], client.connection_id()?, "{kind:?}");
                sender.invoke("SendTo", json!([me["connectionId"], "found"])).await?;
                assert_eq!(client.expect("Message").await?, ["found"]);
            }
        }
        Ok(())
    });
}

#[test]
fn a_client_without_negotiation_has_an_id_at_the_hub() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        for kind in Kind::ALL {
            let client = agents.client(kind, &proxy.url("/bench")).skip_negotiation().open().await?;
            let me = client.invoke("WhoAmI", json!([])).await?;
            assert_eq!(me["connectionId"].as_str().unwrap().len(), 22, "{kind:?}");
        }
        Ok(())
    });
}

#[test]
fn the_hub_sees_address_headers_and_query_of_the_client() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        for kind in Kind::ALL {
            let url = proxy.url("/bench?room=7&name=a%20b");
            let headers = json!({ "User-Agent": "the tests' own" });
            let client = agents.client(kind, &url).headers(headers).open().await?;
            let me = client.invoke("WhoAmI", json!([])).await?;
            assert_eq!(me["remoteAddress"].as_str().unwrap().split(':').next(), Some("127.0.0.1"), "{me}");
            assert_eq!(me["userAgent"], "the tests' own", "{me}");
            assert_eq!(me["userId"], Value::Null, "{me}");
            let query = me["query"].to_string();
            assert!(query.contains("room") && query.contains('7'), "{me}");
            assert!(!me["instance"].as_str().unwrap().is_empty(), "{me}");
        }
        Ok(())
    });
}

#[test]
fn the_user_comes_from_a_signed_token() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let cases = [
            (json!({ "nameid": "alice", "sub": "other", "role": "painter" }), "alice"),
            (json!({ "sub": "bob", "role": "painter" }), "bob"),
        ];
        for (claims, user) in cases {
            let token = token::signed(ACCESS_KEY, &claims)?;
            for kind in Kind::ALL {
                let client = agents.client(kind, &proxy.url("/bench")).access_token(&token).open().await?;
                let me = client.invoke("WhoAmI", json!([])).await?;
                assert_eq!(me["userId"], user, "{kind:?}");
                assert!(me["claims"].to_string().contains("painter"), "{me}");
            }
            assert_eq!(user_of_query_token(&proxy, &token).await?, user);
        }
        Ok(())
    });
}

/// Connects without negotiation, with the token in the query as in browsers.
async fn user_of_query_token(proxy: &Proxy, token: &str) -> Result<Value> {
    let mut client = RawClient::join(proxy.address(), &format!("/bench?access_token={token}")).await?;
    Ok(client.call("WhoAmI", json!([])).await?["result"]["userId"].clone())
}

#[test]
fn a_token_that_is_not_valid_is_refused() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let foreign = token::of_user("another key, which is long enough", "alice")?;
        let expired = token::signed(ACCESS_KEY, &json!({ "nameid": "alice", "exp": 1_000_000_000 }))?;
        let unsigned = "eyJhbGciOiJub25lIn0.eyJuYW1laWQiOiJhbGljZSJ9.";
        for token in [foreign.as_str(), &expired, unsigned, "nonsense"] {
            let bearer = format!("Bearer {token}");
            let negotiate = "/bench/negotiate?negotiateVersion=1";
            let headers = [("authorization", bearer.as_str())];
            let answer = ask(proxy.address(), Method::POST, negotiate, &headers).await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token}");
            let query = format!("{negotiate}&access_token={token}");
            let answer = ask(proxy.address(), Method::POST, &query, &[]).await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token}");
            let connect = format!("/bench?access_token={token}");
            let refusal = RawClient::try_open(proxy.address(), &connect).await?.unwrap_err();
            assert_eq!(refusal.status, 401, "{token}");
        }
        Ok(())
    });
}

#[test]
fn a_connection_belongs_to_the_user_of_its_negotiation() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let alice = token::of_user(ACCESS_KEY, "alice")?;
        let mallory = token::of_user(ACCESS_KEY, "mallory")?;
        let negotiate = format!("/bench/negotiate?negotiateVersion=1&access_token={alice}");
        let negotiated = ask(proxy.address(), Method::POST, &negotiate, &[]).await?.json()?;
        let id = negotiated["connectionToken"].as_str().unwrap();
        // Neither another user's token nor a missing token works, at either node and over each transport.
        let other = fleet.proxy(&app).await?;
        for connect in [format!("/bench?id={id}&access_token={mallory}"), format!("/bench?id={id}")] {
            for node in [&proxy, &other] {
                let refusal = RawClient::try_open(node.address(), &connect).await?.unwrap_err();
                assert_eq!(refusal.status, 401);
                for method in [Method::GET, Method::POST, Method::DELETE] {
                    assert_eq!(ask(node.address(), method, &connect, &[]).await?.status, 401);
                }
            }
        }
        assert_eq!(other.metrics().await?.sum("trunkline_owner_hops_total", &[]), 0.0);
        RawClient::join(proxy.address(), &format!("/bench?id={id}&access_token={alice}")).await?;
        Ok(())
    });
}
