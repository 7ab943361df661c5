//! Identity of a client: id, address, headers and user agree at client, proxy and hub.

use http::Method;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet};
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
        let token = token::signed(ACCESS_KEY, &json!({ "nameid": "alice", "sub": "other", "role": "painter" }))?;
        for proxy in &proxies {
            for kind in Kind::ALL {
                let builder = agents.client(kind, &proxy.url("/bench?room=7&name=a%20b")).subscribe(&["Message"]);
                let headers = json!({ "User-Agent": "the tests' own" });
                let mut client = builder.headers(headers).access_token(&token).open().await?;
                let me = client.invoke("WhoAmI", json!([])).await?;
                assert_eq!(me["connectionId"], client.connection_id()?, "{kind:?}");
                assert_eq!(me["remoteAddress"].as_str().unwrap().split(':').next(), Some("127.0.0.1"), "{me}");
                assert_eq!((&me["userAgent"], &me["userId"]), (&json!("the tests' own"), &json!("alice")), "{me}");
                assert!(me["claims"].to_string().contains("painter"), "{me}");
                let query = me["query"].to_string();
                assert!(query.contains("room") && query.contains('7'), "{me}");
                sender.invoke("SendTo", json!([me["connectionId"], "found"])).await?;
                assert_eq!(client.expect("Message").await?, ["found"]);
                let client = agents.client(kind, &proxy.url("/bench")).skip_negotiation().open().await?;
                let me = client.invoke("WhoAmI", json!([])).await?;
                assert_eq!(me["connectionId"].as_str().unwrap().len(), 22, "{kind:?}");
                assert_eq!(me["userId"], Value::Null, "{me}");
            }
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
