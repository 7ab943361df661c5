//! Delegated authorization: the app's handler accepts a client with claims and cookies, refuses or redirects it.

use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet};
use trunkline_tests::harness::http_client::ask;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::token;

const NEGOTIATE: &str = "/asked/negotiate?negotiateVersion=1";
const DECISIONS: &str = "trunkline_app_decisions_total";

fn cookies(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn a_cookie_identifies_a_user_with_and_without_negotiation() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        for proxy in &proxies {
            for kind in Kind::JS {
                let cookie = json!({ "Cookie": "theme=dark; session=ann" });
                let client = || agents.client(kind, &proxy.url("/asked")).headers(cookie.clone());
                for client in [client().open().await?, client().skip_negotiation().open().await?] {
                    let me = client.invoke("WhoAmI", json!([])).await?;
                    assert_eq!(me["userId"], "ann", "{me}");
                    assert!(me["claims"].as_array().unwrap().contains(&json!(["ip", "127.0.0.1"])), "{me}");
                }
            }
            assert_eq!(proxy.metrics().await?.sum(DECISIONS, &[("outcome", "let_in")]), 4.0);
        }
        Ok(())
    });
}

#[test]
fn the_app_sends_clients_elsewhere() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let [here, there] = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        let token = token::of_user(ACCESS_KEY, "bob")?;
        let url = here.url(&format!("/asked?elsewhere={}&token={token}", there.url("/members")));
        for kind in Kind::JS {
            let client = agents.client(kind, &url).open().await?;
            assert_eq!(client.invoke("WhoAmI", json!([])).await?["userId"], "bob");
        }
        let opened = "trunkline_client_connections_opened_total";
        assert_eq!(there.metrics().await?.sum(opened, &[]), 2.0);
        assert_eq!(here.metrics().await?.sum(opened, &[]), 0.0);
        let answer = ask(here.address(), Method::POST, &format!("{NEGOTIATE}&elsewhere=http://x/y"), &[]).await?;
        assert_eq!(answer.json()?, json!({ "url": "http://x/y", "accessToken": "" }));
        assert_eq!(cookies(&answer.headers), ["a=1", "b=2"]);
        let refusal = RawClient::try_open(here.address(), "/asked?elsewhere=http://x/y").await?.unwrap_err();
        assert_eq!(refusal.status, 400);
        let refused = ask(here.address(), Method::POST, NEGOTIATE, &[]).await?;
        assert_eq!((refused.status, refused.body.as_str()), (StatusCode::IM_A_TEAPOT, "log in first"));
        assert_eq!(refused.header("x-reason"), Some("no session"));
        assert!(refused.headers.keys().all(|name| !name.as_str().starts_with("x-trunkline-answer")));
        // The hub requires a user, but the decision contains none.
        let nobody = ask(here.address(), Method::POST, NEGOTIATE, &[("cookie", "session=token")]).await?;
        assert_eq!((nobody.status, nobody.body.as_str()), (StatusCode::UNAUTHORIZED, ""));
        Ok(())
    });
}
