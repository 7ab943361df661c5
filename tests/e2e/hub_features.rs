//! Features of a hub besides methods: filters, hooks, items, aborts, sends from outside.

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::scenario::{Fixture, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

/// Runs a scene behind proxies and embedded.
fn run_on_each_server(scene: impl AsyncFn(&Agents<'_>, &TestServers) -> Result<()>) {
    run_test(async |fixture: &Fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for setting in Setting::ALL {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            scene(&agents, &test_servers).await?;
        }
        Ok(())
    });
}

#[test]
fn filters_stand_around_methods_in_the_order_in_which_they_were_added() {
    run_on_each_server(async |agents, test_servers| {
        for (index, kind) in Kind::JS.into_iter().enumerate() {
            let client = agents.client(kind, &test_servers.url(index, "/filtered")).open().await?;
            client.invoke("Note", json!(["noted"])).await?;
            let refused = "An unexpected error occurred invoking 'Forbidden' on the server. HubException: not for you";
            assert_eq!(client.invoke_failing("Forbidden", json!([])).await?, refused);
            assert_eq!(client.invoke("Absent", json!([])).await?, "from the stand-in");
            let mapped = "An unexpected error occurred invoking 'Fail' on the server. \
                          HubException: seen by guard: the disk is full";
            assert_eq!(client.invoke_failing("Fail", json!([])).await?, mapped);
            let expected = json!([
                "connected",
                "guard before Note",
                "stand-in before Note of 1",
                "noted",
                "guard after Note",
                "guard before Absent",
                "stand-in before Absent of 0",
                "guard after Absent",
                "guard before Fail",
                "stand-in before Fail of 0",
                "guard after Fail",
                "guard before Log",
                "stand-in before Log of 0",
            ]);
            assert_eq!(client.invoke("Log", json!([])).await?, expected, "{kind:?}");
        }
        Ok(())
    });
}

#[test]
fn items_belong_to_one_connection() {
    run_on_each_server(async |agents, test_servers| {
        let mut ann = agents.client(Kind::JsJson, &test_servers.url(0, "/calls")).open().await?;
        let bob = agents.client(Kind::JsMessagePack, &test_servers.url(0, "/calls")).open().await?;
        assert_eq!(ann.invoke("Remember", json!(["ann"])).await?, Value::Null);
        assert_eq!(bob.invoke("Recall", json!([])).await?, Value::Null);
        assert_eq!(bob.invoke("Remember", json!(["bob"])).await?, Value::Null);
        assert_eq!(ann.invoke("Recall", json!([])).await?, "ann");
        assert_eq!(ann.invoke("Remember", json!(["anna"])).await?, "ann");
        ann.close().await?;
        ann.start_again().await?;
        assert_eq!(ann.invoke("Recall", json!([])).await?, Value::Null);
        Ok(())
    });
}

#[test]
fn a_panic_ends_one_call_and_nothing_else() {
    run_on_each_server(async |agents, test_servers| {
        for (index, kind) in Kind::JS.into_iter().enumerate() {
            let client = agents.client(kind, &test_servers.url(index, "/calls")).open().await?;
            client.invoke("Remember", json!(["me"])).await?;
            let generic = "An unexpected error occurred invoking 'Panic' on the server.";
            for _ in 0..3 {
                assert_eq!(client.invoke_failing("Panic", json!([])).await?, generic);
                client.send("Panic", json!([])).await?;
            }
            assert_eq!(client.invoke("Recall", json!([])).await?, "me");
        }
        Ok(())
    });
}

#[test]
fn an_aborted_connection_is_closed_for_good() {
    run_on_each_server(async |agents, test_servers| {
        for (index, kind) in Kind::JS.into_iter().enumerate() {
            let builder = agents.client(kind, &test_servers.url(index, "/calls")).reconnect_after_ms(&[0]);
            let mut client = builder.open().await?;
            client.send("Abort", json!([])).await?;
            assert_eq!(client.closed().await?, None, "{kind:?}");
        }
        Ok(())
    });
}

#[test]
fn sends_from_outside_a_hub_reach_its_clients_and_tell_how_many_proxies_took_them() {
    run_on_each_server(async |agents, test_servers| {
        let mut clients = Vec::new();
        for index in 0..2 {
            for kind in Kind::JS {
                let url = test_servers.url(index, "/calls");
                clients.push(agents.client(kind, &url).subscribe(&["Announced"]).open().await?);
            }
        }
        for client in &clients {
            client.invoke("Join", json!(["members"])).await?;
        }
        let outsider = agents.client(Kind::JsJson, &test_servers.url(0, "/calls")).subscribe(&["Announced"]);
        let mut outsider = outsider.open().await?;
        // An embedded app has one node inside.
        let nodes = test_servers.proxies.len().max(1).to_string();
        for round in 0..20 {
            let answer = get(test_servers.app.address(), &format!("/announce/members/to-members-{round}")).await?;
            assert_eq!(answer.body, nodes);
            let answer = get(test_servers.app.address(), &format!("/announce/to-all-{round}")).await?;
            assert_eq!(answer.body, nodes);
        }
        for round in 0..20 {
            for client in &mut clients {
                assert_eq!(client.expect("Announced").await?, [format!("to-members-{round}")]);
                assert_eq!(client.expect("Announced").await?, [format!("to-all-{round}")]);
            }
            assert_eq!(outsider.expect("Announced").await?, [format!("to-all-{round}")]);
        }
        Ok(())
    });
}
