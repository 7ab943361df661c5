//! Ports that serve the data plane, and ports that forward its paths to the app.

use anyhow::{Result, ensure};
use http::Method;
use serde_json::{Value, json};
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::http_client::{get, post};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::sockets::free_address;

const SAY: &str = "/:send";

struct PortScene {
    _app: AppServer,
    node: Proxy,
    /// Client that receives the sends.
    client: RawClient,
}

impl PortScene {
    async fn open(fleet: &Fleet<'_>, admin: &str, flags: &[&str]) -> Result<Self> {
        let app = fleet.app(App::Web).await?;
        let mut node = fleet.proxy_of(&free_address()?, admin, &[app.address()], flags)?;
        node.ready().await?;
        node.linked(POOL_SIZE).await?;
        let client = RawClient::join(node.address(), "/hub").await?;
        Ok(Self { _app: app, node, client })
    }

    /// Checks that a port serves the data plane, and that its sends reach the client.
    async fn answers(&mut self, address: &str) -> Result<()> {
        let back_end = back_end(address)?;
        ensure!(back_end.status(Method::HEAD, "/api/health").await? == 200);
        let description = get(address, "/api/openapi.json").await?;
        ensure!((description.status == 200) && description.json()?["openapi"] == "3.1.0", "{description:?}");
        let delivery = back_end.send(SAY, "Said", &json!(address)).await?;
        ensure!(delivery == json!({ "nodes": 1, "clients": 1, "missing": [] }), "{delivery}");
        let record = self.client.next_record().await?;
        ensure!(record == json!({ "type": 1, "target": "Said", "arguments": [address] }), "{record}");
        let stranger = post(address, "/api/hubs/hub/:send").await?;
        ensure!(stranger.status == 401 && stranger.header("www-authenticate") == Some("Bearer"), "{stranger:?}");
        Ok(())
    }

    /// Checks that the client port forwards all paths of the data plane to the app.
    async fn passes(&self) -> Result<()> {
        for (method, path) in [(Method::POST, SAY), (Method::GET, "/api/health"), (Method::GET, "/api/openapi.json")] {
            let back_end = back_end(self.node.address())?;
            let answer = back_end.ask(method.clone(), path, &Value::Null).await?;
            let seen = answer.json()?;
            ensure!(seen["method"] == method.as_str() && seen["uri"] == back_end.path(path).as_str(), "{answer:?}");
        }
        Ok(())
    }
}

fn back_end(address: &str) -> Result<BackEnd> {
    BackEnd::trusted(address, "hub", ACCESS_KEY)
}

#[test]
fn the_client_ports_answer_it_and_leave_other_paths_to_the_app() {
    run_test(async |fixture| {
        let mut scene = PortScene::open(&Fleet::new(fixture), &free_address()?, &["--rest"]).await?;
        let address = scene.node.address().to_owned();
        scene.answers(&address).await?;
        for path in ["/api/other", "/api/hubs", "/mirror"] {
            let passed = get(&address, path).await?;
            ensure!(passed.json()?["uri"] == path, "{passed:?}");
        }
        ensure!(back_end(scene.node.admin())?.status(Method::POST, SAY).await? == 404);
        Ok(())
    });
}

#[test]
fn a_port_of_its_own_answers_nothing_else() {
    run_test(async |fixture| {
        let own = free_address()?;
        let mut scene = PortScene::open(&Fleet::new(fixture), &free_address()?, &["--rest-listen", &own]).await?;
        scene.answers(&own).await?;
        scene.passes().await?;
        for path in ["/", "/mirror", "/metrics", "/api/fleet", "/hub"] {
            let known = back_end(&own)?.ask(Method::GET, &format!("/api/hubs/../..{path}"), &Value::Null).await?;
            ensure!(known.status.is_client_error(), "{path}: {known:?}");
            let answer = get(&own, path).await?;
            ensure!([401, 404].contains(&answer.status.as_u16()), "{path}: {answer:?}");
        }
        ensure!(RawClient::try_open(&own, "/hub").await?.is_err(), "there is no hub");
        Ok(())
    });
}

#[test]
fn the_admin_port_answers_it_beside_its_own_api() {
    run_test(async |fixture| {
        let admin = free_address()?;
        let mut scene = PortScene::open(&Fleet::new(fixture), &admin, &["--rest-listen", &admin]).await?;
        scene.answers(&admin).await?;
        scene.passes().await?;
        let fleet = get(&admin, "/api/fleet").await?;
        ensure!(fleet.status == 200, "{fleet:?}");
        let counted = scene.node.metrics().await?.sum("trunkline_rest_requests_total", &[("outcome", "done")]);
        ensure!(counted == 3.0, "{counted}");
        Ok(())
    });
}
