//! Bad input on HTTP ports: both processes keep running, and other clients are not affected.

use anyhow::Result;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::raw::answer_to_garbage;
use trunkline_tests::harness::scenario::{Fixture, run_test};

/// Fleet with clients on the same proxy that must not be affected.
struct BadInputScene {
    app: AppServer,
    proxy: Proxy,
    witnesses: Vec<Client>,
}

impl BadInputScene {
    async fn open(fixture: &Fixture, agents: &Agents<'_>) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&app).await?;
        let mut witnesses = Vec::new();
        for kind in [Kind::JsJson, Kind::JsMessagePack] {
            witnesses.push(agents.client(kind, &proxy.url("/sends")).subscribe(&["Fence"]).open().await?);
        }
        Ok(Self { app, proxy, witnesses })
    }

    /// Checks that no process has restarted and that the witnesses are served.
    async fn assert_undisturbed(mut self) -> Result<()> {
        assert!(self.app.process.is_running());
        assert!(self.proxy.process.is_running());
        self.witnesses[0].invoke("Fence", json!([1])).await?;
        for witness in &mut self.witnesses {
            assert_eq!(witness.expect("Fence").await?, [1]);
            assert_eq!(witness.invoke("ConnectionId", json!([])).await?, witness.connection_id()?);
        }
        Ok(())
    }
}

/// Runs a test, and checks the witnesses at the end.
fn run_undisturbed(body: impl AsyncFnOnce(&BadInputScene) -> Result<()>) {
    run_test(async |fixture| {
        let agents = Agents::new(fixture);
        let scene = BadInputScene::open(fixture, &agents).await?;
        body(&scene).await?;
        scene.assert_undisturbed().await
    });
}

#[test]
fn garbage_on_the_http_ports_is_answered_or_dropped() {
    run_undisturbed(async |scene| {
        let endless_header = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 1 << 20]].concat();
        let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
        let inputs: [&[u8]; 5] = [
            b"\0\x01\x02\x03\xff\xfe\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS client's hello",
            b"NONSENSE\r\n\r\n",
            &endless_header,
            many_headers.as_bytes(),
        ];
        for address in [scene.proxy.address(), scene.proxy.admin(), scene.app.address()] {
            for input in inputs {
                answer_to_garbage(address, input).await?;
            }
        }
        Ok(())
    });
}
