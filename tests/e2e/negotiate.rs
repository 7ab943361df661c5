//! Connection tokens, from negotiation to connection.

use serde_json::json;
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::http_client::post;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

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
