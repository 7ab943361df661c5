//! Each kind of route, with clients that meet its conditions and clients that don't.

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, ClientBuilder, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet};
use trunkline_tests::harness::http_client::{ask, get, post};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::token::signed;

use super::ruled_fleet::{RuledNode, group, home, named, routes};

/// Client with its request, and its expected app server.
struct Case {
    path: &'static str,
    headers: Value,
    claims: Value,
    home: &'static str,
}

fn case(path: &'static str, headers: Value, claims: Value, home: &'static str) -> Case {
    Case { path, headers, claims, home }
}

impl Case {
    fn client<'a>(&self, agents: &'a Agents<'a>, node: &RuledNode) -> Result<ClientBuilder<'a>> {
        let client = agents.client(Kind::JsJson, &node.proxy.url(self.path)).headers(self.headers.clone());
        let token = signed(ACCESS_KEY, &self.claims)?;
        Ok(if self.claims == json!({}) { client } else { client.access_token(&token) })
    }
}

fn cases() -> Vec<Case> {
    let none = || json!({});
    vec![
        case("/chat", none(), none(), "stable"),
        case("/news", none(), none(), "canary"),
        case("/NEWS/?beta=1", none(), none(), "canary"),
        case("/chat?beta=1", none(), none(), "canary"),
        case("/chat?alpha=1&beta=2", none(), none(), "stable"),
        case("/chat", json!({"X-Tenant": "acme-7"}), none(), "canary"),
        case("/chat", json!({"X-Tenant": "other"}), none(), "stable"),
        case("/chat", json!({"Cookie": "a=b; ring=inner"}), none(), "canary"),
        case("/chat", json!({"Cookie": "ring=outer"}), none(), "stable"),
        case("/chat", none(), json!({"nameid": "ann", "role": "tester"}), "canary"),
        case("/chat", none(), json!({"nameid": "ann", "role": "guest"}), "stable"),
        case("/chat", none(), json!({"nameid": "test-1"}), "canary"),
        case("/chat", none(), json!({"nameid": "Test-1"}), "stable"),
        case("/chat", json!({"X-Forwarded-For": "10.1.2.3"}), none(), "canary"),
        case("/chat", json!({"X-Forwarded-For": "11.1.2.3"}), none(), "stable"),
    ]
}

const KINDS: [&str; 8] = [
    "name = \"all\"\nnext = true",
    "name = \"hub\"\nhub = \"/ne*\"\ngroup = \"canary\"",
    "name = \"query\"\nquery = { name = \"beta\", equals = \"1\" }\ngroup = \"canary\"",
    "name = \"header\"\nheader = { name = \"x-tenant\", prefix = \"acme-\" }\ngroup = \"canary\"",
    "name = \"cookie\"\ncookie = { name = \"ring\", equals = \"inner\" }\ngroup = \"canary\"",
    "name = \"claim\"\nclaim = { name = \"role\", equals = \"tester\" }\ngroup = \"canary\"",
    "name = \"user\"\nuser = \"test-*\"\ngroup = \"canary\"",
    "name = \"address\"\naddress = \"10.0.0.0/8\"\ngroup = \"canary\"",
];

#[test]
fn a_client_comes_to_the_group_of_the_first_route_whose_conditions_it_meets() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (stable, canary) = (named(&fleet, "stable").await?, named(&fleet, "canary").await?);
        let rules = group("canary", &canary) + &routes(KINDS);
        let node = RuledNode::with_apps(&fleet, &stable, &["stable", "canary"], &rules).await?;
        let agents = Agents::new(fixture);
        let (cases, mut clients) = (cases(), Vec::new());
        for case in &cases {
            let shown = format!("{} {} {}", case.path, case.headers, case.claims);
            let client = case.client(&agents, &node)?.open().await.context(shown.clone())?;
            assert_eq!(home(&client).await?, case.home, "{shown}");
            clients.push(client);
        }
        // `/news` with a query matches two routes. The first one applies.
        let matched = [("all", cases.len()), ("hub", 2), ("query", 1), ("header", 1), ("cookie", 1), ("claim", 1)];
        for (route, count) in matched.into_iter().chain([("user", 1), ("address", 1)]) {
            assert_eq!(node.matches(route).await?, count as f64, "{route}");
        }
        Ok(())
    });
}

#[test]
fn requests_that_are_no_hubs_go_by_their_path_to_another_group_or_nowhere() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (stable, canary) = (named(&fleet, "stable").await?, named(&fleet, "canary").await?);
        let rules = group("canary", &canary)
            + &routes([
                "name = \"closed\"\npath = \"/page/closed*\"\nreject = 410\ntext = \"gone for good\"",
                "name = \"new\"\npath = \"/page/new/*\"\ngroup = \"canary\"",
                "name = \"tenant\"\nheader = { name = \"x-tenant\", equals = \"acme\" }\ngroup = \"canary\"",
            ]);
        let node = RuledNode::with_apps(&fleet, &stable, &["stable", "canary"], &rules).await?;
        let expected = [
            ("/page", "stable"),
            ("/page/new", "stable"),
            ("/page/new/one", "canary"),
            ("/PAGE/new/one", ""),
            ("/page/n%65w/one", "canary"),
            ("/page/old/new/one", "stable"),
        ];
        for (path, name) in expected {
            assert_eq!(node.page(path).await?, name, "{path}");
        }
        let address = node.proxy.address();
        let tenant = ask(address, Method::GET, "/page", &[("x-tenant", "acme")]).await?;
        assert_eq!(tenant.body, "canary");
        for path in ["/page/closed", "/page/closed/now", "/page/c%6Cosed"] {
            let closed = get(address, path).await?;
            assert_eq!((closed.status, &*closed.body), (StatusCode::GONE, "gone for good"), "{path}");
            assert_eq!(closed.header("content-type"), Some("text/plain; charset=utf-8"));
        }
        assert_eq!((node.matches("closed").await?, node.matches("new").await?), (3.0, 3.0));
        Ok(())
    });
}

#[test]
fn a_maintenance_page_is_shown_instead_of_all_pages_and_hubs_and_ends_nobody() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let stable = named(&fleet, "stable").await?;
        let node = RuledNode::with_apps(&fleet, &stable, &["stable"], "").await?;
        let agents = Agents::new(fixture);
        let inside = agents.client(Kind::JsJson, &node.chat()).open().await?;
        let page = fixture.folder().join("back-soon.html");
        std::fs::write(&page, "<h1>Back at noon</h1>")?;
        node.reload(&routes([&format!("path = \"/*\"\nreject = 503\npage = {page:?}")])).await?;
        let address = node.proxy.address();
        for answer in [get(address, "/page").await?, get(address, "/").await?, post(address, "/chat/negotiate").await?]
        {
            assert_eq!((answer.status, &*answer.body), (StatusCode::SERVICE_UNAVAILABLE, "<h1>Back at noon</h1>"));
            assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        }
        let refused = RawClient::try_open(address, "/news").await?.err().context("the hub is closed")?;
        assert_eq!(refused.status, 503);
        let official = agents.client(Kind::JsJson, &node.chat()).open().await.err().context("the hub is closed")?;
        assert!(format!("{official:?}").contains("503"), "{official:?}");
        assert_eq!(home(&inside).await?, "stable");
        let refused = node.metric("trunkline_requests_refused_total", &[("cause", "route_refused")]).await?;
        assert_eq!(refused, 5.0);
        node.reload("").await?;
        assert_eq!(node.page("/page").await?, "stable");
        assert_eq!(home(&agents.client(Kind::JsJson, &node.chat()).open().await?).await?, "stable");
        inside.is_undisturbed().await
    });
}
