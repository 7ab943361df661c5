//! Observer page in a browser, and its API: correct contents, and a token is required for changes.

mod acts;
mod api;
mod phone;
mod top;
mod trace;
mod webhook;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::browser::{Browser, Page};
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::http_client::{Answer, exchange, get};
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;

const ADMIN_TOKEN: &str = "the-admin-token-of-the-tests";
const NODES: [&str; 3] = ["proxy-a", "proxy-b", "proxy-c"];
const CLIENTS: usize = 20;

/// Variable with a folder for new screenshots for the documentation.
const PICTURES: &str = "TRUNKLINE_PICTURES";

/// Charts of the last hour.
const FIGURES: usize = 12;

const PICTURE_SIZE: (u32, u32) = (1280, 800);

/// Fleet of two app servers and three nodes.
struct ObserverScene {
    apps: [AppServer; 2],
    proxies: Vec<Proxy>,
}

impl ObserverScene {
    async fn open(fixture: &Fixture) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let apps = [
            fleet.app_with(App::Bench, &["--name", "app-1"]).await?,
            fleet.app_with(App::Bench, &["--name", "app-2"]).await?,
        ];
        let upstreams: Vec<&str> = apps.iter().map(AppServer::address).collect();
        let admins: Vec<String> = NODES.iter().map(|_| free_address()).collect::<Result<_>>()?;
        // Each node lists all nodes including itself, like one DNS name of all nodes.
        let peers = admins.iter().map(|admin| format!("http://{admin}")).collect::<Vec<_>>().join(",");
        let mut proxies = Vec::new();
        for (name, admin) in NODES.iter().zip(&admins) {
            let more = ["--node-name", name, "--peers", &peers, "--admin-token", ADMIN_TOKEN];
            let mut proxy = fleet.proxy_of(&free_address()?, admin, &upstreams, &more)?;
            proxy.ready().await?;
            proxy.linked(apps.len() * POOL_SIZE).await?;
            proxies.push(proxy);
        }
        Ok(Self { apps, proxies })
    }

    /// Client with this number: clients differ in node, user, user agent, protocol, transport and group.
    async fn client(&self, agents: &Agents<'_>, number: usize) -> Result<Client> {
        let proxy = &self.proxies[number % NODES.len()];
        let kind = Kind::JS[number % 2];
        let mut builder = agents.client(kind, &proxy.url("/bench")).subscribe(&["Message"]);
        builder = builder.headers(json!({ "User-Agent": format!("tester/{number}") }));
        if number.is_multiple_of(2) {
            builder = builder.access_token(&token::of_user(ACCESS_KEY, &format!("user-{number}"))?);
        }
        if number % 5 == 4 {
            builder = builder.transport(Transport::LongPolling);
        }
        let client = builder.open().await?;
        client.invoke("Join", json!([format!("room-{}", number % 4)])).await?;
        Ok(client)
    }
}

/// Route of each client on the page: its id, node, app server.
async fn ways(page: &Page) -> Result<BTreeSet<Vec<String>>> {
    let names = ["data-client", "data-node", "data-app"];
    Ok(page.attributes("graph", ".edge[data-client]", &names).await?.into_iter().collect())
}

async fn log_in(page: &Page) -> Result<()> {
    page.click("log-in").await?;
    page.fill("login-token", ADMIN_TOKEN).await?;
    page.click("login-submit").await?;
    page.see("access", "may act").await
}

async fn ask_api(proxy: &Proxy, path: &str) -> Result<Value> {
    get(proxy.admin(), path).await?.json()
}

/// Looks at a page while clients call a method repeatedly.
async fn with_traffic(clients: &[Client], look: impl Future<Output = Result<()>>) -> Result<()> {
    let calls = async {
        loop {
            for client in clients {
                client.invoke("Echo", json!(["hello"])).await?;
            }
        }
    };
    tokio::select! { failed = calls => failed, shown = look => shown }
}

/// Folder for screenshots: the documentation's, or the test's own.
fn pictures(fixture: &Fixture) -> PathBuf {
    std::env::var_os(PICTURES).map_or_else(|| fixture.folder().into(), PathBuf::from)
}

#[test]
fn the_page_of_one_node_shows_all_nodes_and_the_way_of_each_client() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let (mut expected, mut clients) = (BTreeSet::new(), Vec::new());
        for number in 0..CLIENTS {
            let client = scene.client(&agents, number).await?;
            let me = client.invoke("WhoAmI", json!([])).await?;
            let app = me["instance"].as_str().context("an instance")?.to_owned();
            expected.insert(vec![client.connection_id()?.to_owned(), NODES[number % NODES.len()].to_owned(), app]);
            clients.push(client);
        }
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", scene.proxies[1].admin())).await?;
        page.see_count("graph", ".edge[data-client]", CLIENTS).await?;
        page.see_count("graph", ".box.node", NODES.len()).await?;
        assert_eq!(ways(&page).await?, expected);
        let apps: BTreeSet<_> = expected.iter().map(|way| way[2].clone()).collect();
        let links = page.attributes("graph", ".way", &["data-node", "data-app", "data-open", "data-clients"]).await?;
        assert_eq!(links.len(), NODES.len() * apps.len());
        for link in &links {
            let at_home = expected.iter().filter(|way| way[1] == link[0] && way[2] == link[1]).count();
            assert_eq!((&link[2], &link[3]), (&POOL_SIZE.to_string(), &at_home.to_string()), "{link:?}");
        }
        assert_eq!(page.text("sum-clients").await?, CLIENTS.to_string());
        page.resize(PICTURE_SIZE).await?;
        assert_eq!(page.hidden_width(".scroll").await?, 0, "the list of nodes is as wide as the window");
        with_traffic(&clients, async {
            until(async || Ok((!["–", "0/s"].contains(&&*page.text("sum-up").await?)).then_some(()))).await?;
            page.picture(&pictures(fixture).join("observer.png"), "light", PICTURE_SIZE).await
        })
        .await?;
        clients.pop().context("a client")?.close().await?;
        page.see_count("graph", ".edge[data-client]", CLIENTS - 1).await?;
        browser.end().await
    });
}

#[test]
fn the_last_hour_is_drawn_for_all_nodes_and_tells_who_was_lost() {
    run_heavy_test(async |fixture| {
        let mut scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for number in 0..3 {
            clients.push(scene.client(&agents, number).await?);
        }
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", scene.proxies[1].admin())).await?;
        page.see_count("timeline-charts", "figure", FIGURES).await?;
        page.see_count("timeline-node", "option", NODES.len() + 1).await?;
        // Each chart has a line after the first sample.
        page.see_count("timeline-charts", "figure:not(#timeline-latency) path.line[d]", FIGURES - 1).await?;
        page.see("timeline-clients-value", "3").await?;
        page.see("timeline-memory-value", "MiB").await?;
        scene.apps[1].process.kill().await?;
        page.see("timeline-marks", "App server app-2 is").await?;
        page.see("graph", "lost ").await?;
        page.focus_in("timeline", "#timeline-charts").await?;
        page.press("ArrowLeft").await?;
        page.see("timeline-at", "at ").await?;
        browser.end().await
    });
}

#[test]
fn details_of_a_client_are_shown_payloads_only_on_request_and_it_can_be_closed() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut client = scene.client(&agents, 4).await?;
        let other = scene.client(&agents, 5).await?;
        let mut crowd = Vec::new();
        for number in 6..CLIENTS {
            crowd.push(scene.client(&agents, number).await?);
        }
        let browser = Browser::start(fixture)?;
        // Page of a node other than the client's.
        let page = browser.open("observer", &format!("http://{}/", scene.proxies[0].admin())).await?;
        page.see("access", "read-only").await?;
        page.see("log-in", "Log in to act").await?;
        let dot = format!(".dot[data-id=\"{}\"]", client.connection_id()?);
        page.see_count("graph", &dot, 1).await?;
        page.focus_in("graph", &dot).await?;
        assert!(page.focused().await?.contains("user-4"));
        page.press("Enter").await?;
        let me = client.invoke("WhoAmI", json!([])).await?;
        let told = ask_api(&scene.proxies[2], &format!("/api/clients/{}", client.connection_id()?)).await?;
        assert_eq!(told["app"], me["instance"], "{told}");
        let app = told["appName"].as_str().context("an app server")?;
        for (fact, told) in [
            ("user", me["userId"].as_str().context("a user")?),
            ("agent", me["userAgent"].as_str().context("a user agent")?),
            ("address", me["remoteAddress"].as_str().context("an address")?),
            ("hub", "bench"),
            ("node", NODES[1]),
            ("app", app),
            ("instance", me["instance"].as_str().context("an instance")?),
            ("groups", "room-0"),
            ("transport", "Long polling"),
            ("protocol", "JSON"),
            ("state", "open"),
        ] {
            page.see(&format!("client-fact-{fact}"), told).await?;
        }
        says_what(&page, &client, &other).await?;
        page.picture(&pictures(fixture).join("observer-client.png"), "dark", PICTURE_SIZE).await?;
        page.click("client-end").await?;
        page.fill("closing-reason", "it was only a test").await?;
        page.click("closing-submit").await?;
        page.see("client-note", "This connection has ended").await?;
        let why = ask_api(&scene.proxies[2], &format!("/api/why/{}", client.connection_id()?)).await?;
        assert_eq!((&why["cause"], &why["node"]), (&json!("operator"), &json!(NODES[1])), "{why}");
        let error = client.closed().await?.context("an error, because a reason was given")?;
        assert!(error.contains("Connection closed with an error"), "{error}");
        page.see("client-events", "connected").await?;
        page.see("client-events", "ended: ").await?;
        page.see_count("graph", &dot, 0).await?;
        assert_eq!(other.invoke("Echo", json!(["still here"])).await?, "still here");
        browser.end().await
    });
}

/// Checks that the page shows messages of one client in both directions, and none of another client.
async fn says_what(page: &Page, client: &Client, other: &Client) -> Result<()> {
    let secret = json!({ "text": "the first words", "password": "hush" });
    // The watch starts with the stream, so earlier messages may not be shown.
    let mut told = String::new();
    while !(told.contains("Echo") && told.contains("completion")) {
        client.invoke("Echo", json!([secret])).await?;
        other.invoke("Echo", json!(["of somebody else"])).await?;
        told = page.text("client-messages").await?;
    }
    assert!(!told.contains("first words") && !told.contains("hush"), "payloads are hidden: {told}");
    // A read-only user is asked to log in.
    page.click("client-payloads").await?;
    page.fill("login-token", "not-the-token-at-all").await?;
    page.click("login-submit").await?;
    page.see("login-problem", "--admin-token").await?;
    page.click("login-cancel").await?;
    log_in(page).await?;
    page.click("client-payloads").await?;
    page.see("client-payloads", "Hide payloads").await?;
    let mut number = 0;
    while page.count("client-messages", ".payload").await? == 0 {
        number += 1;
        let words = json!({ "text": format!("words {number}"), "password": "hush" });
        client.invoke("Echo", json!([words])).await?;
        other.invoke("Echo", json!(["of somebody else"])).await?;
    }
    page.see("client-messages", "\"text\":\"words").await?;
    let told = page.text("client-messages").await?;
    assert!(told.contains("\"password\":\"[redacted]\""), "{told}");
    assert!(!told.contains("hush") && !told.contains("somebody else") && !told.contains("first words"), "{told}");
    Ok(())
}

#[test]
fn who_may_act_announces_to_the_clients_of_all_nodes_and_is_told_whom_it_reached() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for number in 0..6 {
            clients.push(scene.client(&agents, number).await?);
        }
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", scene.proxies[0].admin())).await?;
        page.see_count("nodes", "tbody tr[data-state=open]", NODES.len()).await?;
        page.see_count("graph", ".edge[data-client]", clients.len()).await?;
        log_in(&page).await?;
        page.click("announce").await?;
        page.fill("announcing-target", "Message").await?;
        page.fill("announcing-arguments", "soon").await?;
        page.click("announcing-submit").await?;
        page.see("announcing-problem", "not a JSON list").await?;
        page.fill("announcing-arguments", "[\"soon\"]").await?;
        page.click("announcing-submit").await?;
        page.see("announcing-answer", "Given to 6 clients at 3 nodes.").await?;
        for client in &mut clients {
            assert_eq!(client.expect("Message").await?, [json!("soon")]);
        }
        assert_eq!(page.text("announcing-problem").await?, "");
        browser.end().await
    });
}

#[test]
fn lists_are_found_by_keyboard_and_lead_from_groups_to_clients() {
    run_heavy_test(async |fixture| {
        let scene = ObserverScene::open(fixture).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for number in 0..6 {
            clients.push(scene.client(&agents, number).await?);
        }
        let browser = Browser::start(fixture)?;
        let page = browser.open("observer", &format!("http://{}/", scene.proxies[2].admin())).await?;
        page.see_count("nodes", "tbody tr", NODES.len()).await?;
        page.focus_in("tabs", "[aria-selected=true]").await?;
        for name in ["Links", "Hubs", "Clients", "Groups"] {
            page.press("ArrowRight").await?;
            assert_eq!(page.focused().await?, name);
        }
        page.see_count("groups", "tbody tr", 4).await?;
        let rooms = page.attributes("groups", "tbody tr", &["data-key"]).await?.concat();
        assert_eq!(rooms, ["bench room-0", "bench room-1", "bench room-2", "bench room-3"]);
        page.click_in("groups", "tbody tr:nth-child(2) button").await?;
        page.see_count("clients", "tbody tr", 2).await?;
        let shown: BTreeSet<_> =
            page.attributes("clients", "tbody tr", &["data-key"]).await?.concat().into_iter().collect();
        let members = [&clients[1], &clients[5]].map(|client| client.connection_id().map(str::to_owned));
        assert_eq!(shown, members.into_iter().collect::<Result<_>>()?);
        page.fill("find-text", "user-2").await?;
        page.press("Enter").await?;
        page.see_count("clients", "tbody tr", 1).await?;
        page.see("clients", clients[2].connection_id()?).await?;
        browser.end().await
    });
}

async fn post(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    exchange(address, http::Method::POST, path, &all, bytes::Bytes::copy_from_slice(body.as_bytes())).await
}
