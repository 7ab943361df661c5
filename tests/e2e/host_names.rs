//! Host names with several addresses: each address is a separate app server, for links and for single requests.
//!
//! No name of this machine has several addresses, so node and app servers run in the test, with a resolver that returns
//! them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use clap::Parser;
use http::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;
use trunkline::{Hub, Negotiation, Server};
use trunkline_command::ServeArgs;
use trunkline_proxy::{Config, Node, Resolver};
use trunkline_tests::harness::fleet::{ACCESS_KEY, POOL_SIZE};
use trunkline_tests::harness::http_client::ask;
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::{run_test, until};
use trunkline_tests::harness::sockets::free_address;

const NEGOTIATE: &str = "/asked/negotiate?negotiateVersion=1";

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArgs,
}

/// App server on its own runtime, so that it can end immediately with all its sockets.
struct OneOfTwo {
    runtime: Option<Runtime>,
    accepting: AbortHandle,
    passed: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl OneOfTwo {
    async fn start(address: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let [passed, asked]: [Arc<AtomicUsize>; 2] = Default::default();
        let (pass, decide) = (count(&passed), count(&asked));
        let hub = Hub::new("/asked").on_negotiate(async move || {
            decide();
            Negotiation::user("ann")
        });
        let server = Server::new().access_key(ACCESS_KEY).hub(hub);
        let page = get(async move || pass());
        let router = Router::new().route("/page", page).merge(server.into_router()?);
        let router = router.into_make_service_with_connect_info::<SocketAddr>();
        let listening = async move { anyhow::Ok(axum::serve(TcpListener::bind(address).await?, router)) };
        let serve = runtime.spawn(listening).await??;
        let accepting = runtime.spawn(async move { serve.await }).abort_handle();
        Ok(Self { runtime: Some(runtime), accepting, passed, asked })
    }

    /// Number of links and of requests since the last call.
    fn counts(&self) -> (usize, usize) {
        (self.passed.swap(0, Ordering::Relaxed), self.asked.swap(0, Ordering::Relaxed))
    }

    fn vanish(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for OneOfTwo {
    fn drop(&mut self) {
        self.vanish();
    }
}

fn count(counter: &Arc<AtomicUsize>) -> impl Fn() + Clone + Send + Sync + 'static {
    let counter = counter.clone();
    move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Two app servers behind one name, and a node linked to both.
struct HostNameScene {
    apps: [OneOfTwo; 2],
    node: Node,
}

impl HostNameScene {
    async fn start() -> Result<Self> {
        let free: SocketAddr = free_address()?.parse()?;
        let addresses = [[127, 0, 0, 2], [127, 0, 0, 3]].map(|ip| SocketAddr::from((ip, free.port())));
        let apps = [OneOfTwo::start(addresses[0]).await?, OneOfTwo::start(addresses[1]).await?];
        let upstream = format!("http://apps.invalid:{}", free.port());
        let (listen, admin) = (free_address()?, free_address()?);
        // Each shard distributes requests separately, so one shard makes the counts exact.
        let arguments = ["--listen", &listen, "--admin", &admin, "--upstream", &upstream, "--shards", "1"];
        let arguments = ["node"].iter().chain(&arguments).chain(&["--access-key", ACCESS_KEY]);
        let mut config = Config::try_from(Arguments::try_parse_from(arguments)?.serve)?;
        config.resolver = Resolver::knowing(addresses.into());
        let scene = Self { apps, node: Node::start(config).await? };
        scene.linked(2).await?;
        Ok(scene)
    }

    async fn linked(&self, apps: usize) -> Result<()> {
        until(async || {
            let metrics = Metrics::of(&self.node.admin().to_string()).await?;
            let open = metrics.sum("trunkline_links", &[("state", "open")]);
            Ok((open == (apps * POOL_SIZE) as f64).then_some(()))
        })
        .await
    }

    /// Makes requests of both kinds, which must be answered. Returns the number at each app server.
    async fn counts(&self, requests: usize) -> Result<[(usize, usize); 2]> {
        let address = self.node.listen().to_string();
        for _ in 0..requests {
            for (method, path) in [(Method::GET, "/page"), (Method::POST, NEGOTIATE)] {
                let answer = ask(&address, method, path, &[]).await.context(path)?;
                assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
            }
        }
        Ok(self.apps.each_ref().map(OneOfTwo::counts))
    }
}

#[test]
fn an_address_that_is_linked_but_refuses_clients_is_skipped() {
    run_test(async |_stage| {
        let scene = HostNameScene::start().await?;
        // Open connections stay open, so the links remain.
        scene.apps[0].accepting.abort();
        // Waits until no new connections are accepted.
        until(async || Ok(scene.apps[0].accepting.is_finished().then_some(()))).await?;
        assert_eq!(scene.counts(6).await?, [(0, 0), (6, 6)]);
        scene.linked(2).await?;
        scene.node.stop().await;
        Ok(())
    });
}
