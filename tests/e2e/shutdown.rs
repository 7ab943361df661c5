//! Ctrl-C and planned stops end everything cleanly.

use std::cell::Cell;
use std::net::TcpListener;

use anyhow::{Result, ensure};
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::demo::{Addresses, Demo, press_ctrl_c};
use trunkline_tests::harness::fleet::{App, Fleet, POOL_SIZE, failure_of, stop};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test, run_test, until};

/// Number of clients that call continuously while app servers are replaced.
const CALLERS: usize = 60;

/// Planned stops during these calls.
const STOPS: usize = 5;

const CALLS_BETWEEN_STOPS: usize = 300;

/// The demo, an app server, two proxies.
const DEMO_PROCESSES: usize = 4;

#[test]
fn app_servers_and_proxies_end_on_either_signal() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        for signal in [Signal::Interrupt, Signal::Terminate] {
            for app in [App::Chat, App::Status, App::Bench] {
                let mut app = fleet.app(app).await?;
                let mut proxy = fleet.proxy(&app).await?;
                stop(&mut proxy.process, signal).await?;
                stop(&mut app.process, signal).await?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_stop_closes_the_clients_that_are_there() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Bench).await?;
        let agents = Agents::new(fixture);
        for signal in [Signal::Interrupt, Signal::Terminate] {
            let mut proxy = fleet.proxy(&app).await?;
            let mut clients = Vec::new();
            for kind in Kind::ALL {
                let client = agents.client(kind, &proxy.url("/bench")).open().await?;
                client.invoke("Echo", json!([1])).await?;
                clients.push(client);
            }
            stop(&mut proxy.process, signal).await?;
            for client in &mut clients {
                client.closed().await?;
            }
        }
        stop(&mut app.process, Signal::Terminate).await
    });
}

/// Counted calls of many clients.
#[derive(Debug, Default)]
struct CallTally {
    answered: Cell<usize>,
    failed: Cell<usize>,
    is_over: Cell<bool>,
}

impl CallTally {
    /// Calls sequentially until the end.
    async fn call_on(&self, client: &Client) -> Result<()> {
        while !self.is_over.get() {
            let number = self.answered.get();
            let count = match client.call("Echo", json!([number])).await? {
                Ok(answer) if answer == json!(number) => &self.answered,
                _ => &self.failed,
            };
            count.set(count.get() + 1);
        }
        Ok(())
    }

    async fn wait_for_more(&self, calls: usize) -> Result<()> {
        let enough = self.answered.get() + calls;
        until(async || Ok((self.answered.get() >= enough).then_some(()))).await
    }
}

#[test]
fn planned_stops_of_app_servers_fail_no_call() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut apps = [fleet.app(App::Bench).await?, fleet.app(App::Bench).await?];
        let proxy = fleet.proxy_with(&[&apps[0], &apps[1]], &[]).await?;
        let agents = Agents::new(fixture);
        let url = proxy.url("/bench");
        let clients = try_join_all((0..CALLERS).map(|_| agents.client(Kind::JsJson, &url).open())).await?;
        let tally = CallTally::default();
        let replacing = async {
            for round in 0..STOPS {
                tally.wait_for_more(CALLS_BETWEEN_STOPS).await?;
                let app = &mut apps[round % 2];
                stop(&mut app.process, Signal::Terminate).await?;
                app.start_again(fixture).await?;
                proxy.linked(2 * POOL_SIZE).await?;
            }
            tally.wait_for_more(CALLS_BETWEEN_STOPS).await
        };
        let replacing = async {
            let replaced = replacing.await;
            tally.is_over.set(true);
            replaced
        };
        let (called, replaced) = tokio::join!(join_all(clients.iter().map(|client| tally.call_on(client))), replacing);
        replaced?;
        called.into_iter().collect::<Result<()>>()?;
        ensure!(tally.failed.get() == 0, "{} calls failed, {} did not", tally.failed.get(), tally.answered.get());
        for client in &clients {
            client.is_undisturbed().await?;
        }
        Ok(())
    });
}

async fn running_demo(fixture: &Fixture, arguments: &[&str]) -> Result<Demo> {
    let mut demo = Demo::start_with(fixture, Addresses::free()?, arguments)?;
    demo.invites().await?;
    assert_eq!(demo.processes()?.len(), DEMO_PROCESSES);
    Ok(demo)
}

/// Checks that the demo ends without an error and leaves no process and no port.
async fn assert_ended_cleanly(mut demo: Demo) -> Result<()> {
    let status = demo.process.ended().await?;
    assert!(status.success(), "{status}\n{}", demo.process.log());
    assert_nothing_left(&demo)
}

fn assert_nothing_left(demo: &Demo) -> Result<()> {
    assert_eq!(demo.processes()?, [0_u32; 0]);
    let Addresses { app, proxies, admins } = demo.addresses();
    for address in [app].into_iter().chain(proxies).chain(admins) {
        TcpListener::bind(address)?;
    }
    Ok(())
}

#[test]
fn the_demo_lets_clients_of_both_proxies_chat_and_ends_on_ctrl_c() {
    run_test(async |fixture| {
        let demo = running_demo(fixture, &[]).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for (kind, proxy) in [Kind::JsJson, Kind::PySignalRMessagePack].into_iter().zip(&demo.addresses().proxies) {
            let url = format!("http://{proxy}/chat");
            clients.push(agents.client(kind, &url).subscribe(&["ReceiveMessage"]).open().await?);
        }
        for sender in 0..clients.len() {
            clients[sender].invoke("SendMessage", json!([format!("user {sender}"), "hello"])).await?;
            for client in &mut clients {
                assert_eq!(client.expect("ReceiveMessage").await?, [json!(format!("user {sender}")), json!("hello")]);
            }
        }
        for admin in &demo.addresses().admins {
            assert!(get(admin, "/").await?.status.is_success(), "the admin page");
        }
        press_ctrl_c(&demo).await?;
        assert_ended_cleanly(demo).await
    });
}

#[test]
fn the_demo_ends_on_signals_to_itself_alone() {
    run_test(async |fixture| {
        for signal in [Signal::Interrupt, Signal::Terminate] {
            let demo = running_demo(fixture, &[]).await?;
            demo.process.signal(signal).await?;
            assert_ended_cleanly(demo).await?;
        }
        Ok(())
    });
}

/// Clients of the whole fleet, according to the admin port of one node.
async fn clients_of_fleet(admin: &str) -> Result<Vec<serde_json::Value>> {
    let page = get(admin, "/api/clients").await?.json()?;
    Ok(page["items"].as_array().cloned().unwrap_or_default())
}

#[test]
fn each_app_of_the_demo_shows_its_page_and_the_simulated_clients_of_both_proxies() {
    run_heavy_test(async |fixture| {
        for (app, title, hub) in [
            ("chat", "chat", Some("chat")),
            ("status", "status", Some("statusHub")),
            ("board", "board", None),
            ("streaming", "streams", Some("streams")),
        ] {
            let traffic: &[&str] = if hub.is_some() { &["--traffic"] } else { &[] };
            let demo = running_demo(fixture, &[&["--app", app], traffic].concat()).await?;
            for proxy in &demo.addresses().proxies {
                let page = get(proxy, "/").await?.body;
                assert!(page.to_lowercase().contains(&format!("<title>trunkline {title}</title>")), "{page}");
            }
            for admin in demo.addresses().admins.iter().filter(|_| hub.is_some()) {
                until(async || {
                    let clients = clients_of_fleet(admin).await?;
                    let is_at = |client: &&serde_json::Value, node: &str| {
                        client["node"] == node && client["hub"].as_str() == hub
                    };
                    let at = |node: &str| clients.iter().filter(|client| is_at(client, node)).count();
                    Ok((at("proxy-1") > 1 && at("proxy-2") > 1).then_some(()))
                })
                .await?;
            }
            if app == "chat" {
                hears_both_proxies(fixture, &demo).await?;
            }
            press_ctrl_c(&demo).await?;
            assert_ended_cleanly(demo).await?;
        }
        Ok(())
    });
}

/// Checks that a client receives messages of simulated clients at both proxies.
async fn hears_both_proxies(fixture: &Fixture, demo: &Demo) -> Result<()> {
    let url = format!("http://{}/chat", demo.addresses().proxies[0]);
    let mut client = Agents::new(fixture).client(Kind::JsJson, &url).subscribe(&["ReceiveMessage"]).open().await?;
    // Each proxy has three clients, with names in this order.
    let mut silent = vec!["Ada", "Tony"];
    while !silent.is_empty() {
        let message = client.expect("ReceiveMessage").await?;
        silent.retain(|name| message.first() != Some(&json!(name)));
    }
    Ok(())
}

#[test]
fn an_unknown_app_of_the_demo_is_refused_with_the_nearest_name() {
    run_test(async |fixture| {
        let mut demo = Demo::start_with(fixture, Addresses::free()?, &["--app", "chatt"])?;
        let log = failure_of(&mut demo.process).await?;
        assert!(log.contains("'chat'") && log.contains("streaming"), "{log}");
        Ok(())
    });
}

#[test]
fn a_port_that_the_demo_needs_is_named_with_its_flag() {
    run_test(async |fixture| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let taken = listener.local_addr()?.to_string();
        let with = |change: fn(&mut Addresses, String)| {
            let mut addresses = Addresses::free()?;
            change(&mut addresses, taken.clone());
            anyhow::Ok(addresses)
        };
        let cases = [
            ("--app-listen", with(|addresses, taken| addresses.app = taken)?),
            ("--proxy", with(|addresses, taken| addresses.proxies[1] = taken)?),
            ("--admin", with(|addresses, taken| addresses.admins[0] = taken)?),
        ];
        for (flag, addresses) in cases {
            let mut demo = Demo::start(fixture, addresses)?;
            let log = failure_of(&mut demo.process).await?;
            assert!(log.contains(flag) && log.contains(&taken), "{log}");
            assert_eq!(demo.processes()?, [0_u32; 0]);
        }
        Ok(())
    });
}
