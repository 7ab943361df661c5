//! Proxy and app server of different versions: each ignores what it does not know.

use serde_json::{Value, json};
use trunkline_protocol::manifest::{CAPABILITIES_HEADER, Transport};
use trunkline_tests::apps::other_version::{Difference, OtherVersion};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet, POOL_SIZE};
use trunkline_tests::harness::scenario::run_heavy_test;
use trunkline_tests::harness::sockets::free_address;

/// Hub fields added after the first release. If they are missing, their defaults apply.
const LATER_FIELDS: [&str; 4] = ["kind", "slowClients", "closeOnTokenExpiry", "asksApp"];

/// A future app server sends additional fields everywhere.
fn newer(manifest: &mut Value) {
    manifest["version"] = "99.0.0".into();
    manifest["regions"] = json!(["north", { "name": "south" }]);
    for hub in manifest["hubs"].as_array_mut().into_iter().flatten() {
        hub["newSetting"] = json!({ "of": "a later version" });
    }
}

/// Manifest of the first releases, with fewer fields.
fn older(manifest: &mut Value) {
    manifest["version"] = "0.0.1".into();
    for hub in manifest["hubs"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for field in LATER_FIELDS {
            hub.remove(field);
        }
    }
}

#[test]
fn a_proxy_works_with_newer_and_with_older_app_servers() {
    run_heavy_test(async |fixture| {
        let differences = [
            Difference { manifest: newer, capabilities: Some("later=7, ") },
            // Without the capability to resume.
            Difference { manifest: older, capabilities: None },
        ];
        for difference in differences {
            let fleet = Fleet::new(fixture);
            let app = fleet.app(App::Bench).await?;
            let seen = OtherVersion::start(app.address(), difference).await?;
            let mut proxy = fleet.proxy_at(&free_address()?, &free_address()?, &[seen.address()])?;
            proxy.ready().await?;
            proxy.linked(POOL_SIZE).await?;
            let agents = Agents::new(fixture);
            for kind in [Kind::JsJson, Kind::JsMessagePack] {
                let client = agents.client(kind, &proxy.url("/bench")).transport(Transport::WebSockets);
                let mut client = client.open().await?;
                for number in 0..20 {
                    assert_eq!(client.invoke("Echo", json!([number])).await?, number);
                }
                client.close().await?;
            }
            assert_eq!(seen.links(), POOL_SIZE, "{CAPABILITIES_HEADER}: no link was dropped for what it does not know");
        }
        Ok(())
    });
}
