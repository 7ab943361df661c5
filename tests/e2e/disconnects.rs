//! Disconnects are reported exactly once.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind, Message};
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

/// Client that receives arrivals and departures.
async fn watcher(agents: &Agents<'_>, kind: Kind, proxy: &Proxy) -> Result<Client> {
    agents.client(kind, &proxy.url("/statusHub")).subscribe(&["online", "offline"]).open().await
}

/// Number of departures per name, until all names have left and a fence has arrived.
async fn departures(watcher: &mut Client, names: &[String], fence: &str) -> Result<BTreeMap<String, usize>> {
    let mut seen = BTreeMap::new();
    let count = |seen: &mut BTreeMap<String, usize>, message: Message| {
        if message.target == "offline" {
            let name = message.arguments[0].as_str().unwrap_or_default();
            *seen.entry(name.to_owned()).or_default() += 1;
        }
    };
    while !names.iter().all(|name| seen.contains_key(name)) {
        let message = watcher.next().await?;
        count(&mut seen, message);
    }
    watcher.invoke("SendPing", json!([fence])).await?;
    let fence = Message { target: "online".into(), arguments: vec![json!(fence)] };
    for message in watcher.before(&fence).await? {
        count(&mut seen, message);
    }
    Ok(seen)
}

fn once_each(names: &[String]) -> BTreeMap<String, usize> {
    names.iter().map(|name| (name.clone(), 1)).collect()
}

#[test]
fn a_killed_client_process_disconnects_once_for_each_connection() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Status).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let watching = Agents::new(fixture);
        let mut watchers = Vec::new();
        for (kind, proxy) in [(Kind::JsJson, &proxies[0]), (Kind::PySignalRMessagePack, &proxies[1])] {
            watchers.push(watcher(&watching, kind, proxy).await?);
        }

        let doomed = Agents::new(fixture);
        let mut names = Vec::new();
        let mut clients = Vec::new();
        for kind in Kind::ALL {
            for (number, proxy) in proxies.iter().enumerate() {
                let name = format!("{kind:?} at {number}");
                let client = doomed.client(kind, &proxy.url("/statusHub")).open().await?;
                client.invoke("SendPing", json!([name])).await?;
                clients.push(client);
                names.push(name);
            }
        }
        for kind in [Kind::JsJson, Kind::PySignalRJson] {
            doomed.kill(kind).await?;
        }
        for (number, watcher) in watchers.iter_mut().enumerate() {
            let seen = departures(watcher, &names, &format!("fence {number}")).await?;
            assert_eq!(seen, once_each(&names));
        }
        Ok(())
    });
}

#[test]
fn every_kind_of_disconnect_is_seen_once() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Status).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let mut watcher = watcher(&agents, Kind::JsMessagePack, &proxy).await?;
        let mut names: Vec<String> = Vec::new();
        for kind in Kind::ALL {
            let name = format!("{kind:?}");
            let mut client = agents.client(kind, &proxy.url("/statusHub")).open().await?;
            client.invoke("SendPing", json!([name])).await?;
            client.close().await?;
            names.push(name);
        }
        for (name, farewell) in [("says close", Some("{\"type\":7}\u{1e}")), ("closes the socket", None)] {
            let mut client = named_raw_client(&proxy, name).await?;
            if let Some(farewell) = farewell {
                client.send_text(farewell).await?;
                assert_eq!(client.ending().await?.code, Some(1000), "{name}");
            } else {
                assert_eq!(client.close().await?.code, Some(1000), "{name}");
            }
            names.push(name.into());
        }
        drop(named_raw_client(&proxy, "drops the socket").await?);
        names.push("drops the socket".into());
        assert_eq!(departures(&mut watcher, &names, "fence").await?, once_each(&names));
        Ok(())
    });
}

async fn named_raw_client(proxy: &Proxy, name: &str) -> Result<RawClient> {
    let mut client = RawClient::join(proxy.address(), "/statusHub").await?;
    client.call("SendPing", json!([name])).await?;
    Ok(client)
}
