//! Two app servers behind a node, in one process, with real sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use clap::Parser;
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use trunkline::{Context, Hub, HubError, RawConnection, RawEndpoint, Server, UploadStream};
use trunkline_command::ServeArgs;
use trunkline_proxy::{Config, Node};

const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const KEY: &str = "the access key of these tests";

/// Options of the node, as on its command line.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArgs,
}

/// An app server that is stopped by a signal.
pub(crate) struct StoppableApp {
    pub(crate) address: SocketAddr,
    signal: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

/// Two app servers that are replaced one after the other, and their node.
pub(crate) struct RollingFleet {
    apps: Vec<Option<StoppableApp>>,
    node: Node,
}

async fn work(milliseconds: u64) -> u64 {
    // sleep: the work of a method.
    sleep(Duration::from_millis(milliseconds)).await;
    milliseconds
}

async fn count(to: u32, milliseconds: u64) -> Result<impl Stream<Item = u32>, HubError> {
    Ok(stream::iter(0..to).then(move |number| async move {
        work(milliseconds).await;
        number
    }))
}

async fn sum(mut numbers: UploadStream<i64>) -> Result<i64, HubError> {
    let mut sum = 0;
    while let Some(number) = numbers.next().await {
        sum += number?;
    }
    Ok(sum)
}

async fn ask(ctx: Context) -> Result<u32, HubError> {
    Ok(ctx.clients().caller().invoke("Ask", ()).await?)
}

fn hub() -> Hub {
    Hub::new("/calls")
        .method("Echo", async |number: u64| number)
        .method("Work", work)
        .method("Count", count)
        .method("Sum", sum)
        .method("Ask", ask)
}

/// Echoes numbers, which must arrive in order, and sends its own numbers.
async fn feed(mut client: RawConnection) -> Result<(), HubError> {
    let (mut received, mut sent): (u64, u64) = match client.rehomed() {
        Some(moved) => moved.items()?.unwrap_or_default(),
        None => (0, 0),
    };
    let mut ticks = interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = client.recv() => {
                let Some(message) = message else { break };
                received += 1;
                if message.as_bytes() != format!("up {received}").as_bytes() {
                    return Err(HubError::new(format!("{message:?} instead of message {received}")));
                }
                client.send(message).await?;
            }
            _ = ticks.tick() => {
                sent += 1;
                client.send(format!("down {sent}")).await?;
            }
        }
    }
    if client.is_leaving() {
        client.hand_over(&(received, sent))?;
    }
    Ok(())
}

impl StoppableApp {
    async fn start(address: SocketAddr) -> Self {
        let feed = RawEndpoint::new("/feed", feed).movable(true);
        Self::start_with(address, Server::new().hub(hub()).raw_endpoint(feed)).await
    }

    /// Starts an app server with the hub alone.
    pub(crate) async fn start_hub() -> Self {
        Self::start_with(ANYWHERE, Server::new().hub(hub())).await
    }

    async fn start_with(address: SocketAddr, server: Server) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = server.access_key(KEY);
        let handle = server.handle();
        let router = Router::new().merge(server.into_router().unwrap());
        let (signal, stopping) = oneshot::channel();
        let signalled = async move { drop(stopping.await) };
        let serving = tokio::spawn(trunkline::serve(listener, router, &handle).with_signal(signalled).into_future());
        Self { address, signal, serving }
    }

    pub(crate) async fn stop(self) {
        self.signal.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
    }
}

impl RollingFleet {
    pub(crate) async fn start() -> Self {
        let apps = [StoppableApp::start(ANYWHERE).await, StoppableApp::start(ANYWHERE).await];
        let node = start_node(apps.each_ref().map(|app| app.address), &[]).await;
        let fleet = Self { apps: apps.into_iter().map(Some).collect(), node };
        fleet.linked().await;
        fleet
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.node.listen()
    }

    async fn linked(&self) {
        linked(&self.node, 20.0).await;
    }

    /// Stops app servers gracefully and simultaneously, and starts others at their addresses.
    pub(crate) async fn replace(&mut self, places: &[usize]) {
        let stopping: Vec<_> = places.iter().map(|&place| self.apps[place].take().unwrap()).collect();
        let addresses: Vec<_> = stopping.iter().map(|app| app.address).collect();
        join_all(stopping.into_iter().map(StoppableApp::stop)).await;
        for (&place, address) in places.iter().zip(addresses) {
            self.apps[place] = Some(StoppableApp::start(address).await);
        }
        self.linked().await;
    }

    /// Causes with which the node has closed clients, with their counts.
    pub(crate) async fn closes(&self) -> Vec<String> {
        let metrics = admin_page(self.node.admin(), "/metrics").await;
        let closes = metrics.lines().filter(|line| line.starts_with("trunkline_client_connections_closed_total{"));
        closes.filter(|line| !line.ends_with(" 0")).map(Into::into).collect()
    }

    pub(crate) async fn stop(self) {
        self.node.stop().await;
    }
}

/// Starts a node in front of these app servers, with additional arguments.
pub(crate) async fn start_node(apps: [SocketAddr; 2], more: &[&str]) -> Node {
    let upstreams = apps.map(|address| format!("http://{address}"));
    let mut arguments = vec!["node", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "3"];
    arguments.extend(["--access-key", KEY, "--upstream", &upstreams[0], "--upstream", &upstreams[1]]);
    // Distributes clients over all links of a pool.
    arguments.extend(["--pool-turn", "1"]);
    arguments.extend(more);
    let config = Config::try_from(Arguments::try_parse_from(arguments).unwrap().serve).unwrap();
    Node::start(config).await.unwrap()
}

/// Waits until this number of links is open.
pub(crate) async fn linked(node: &Node, links: f64) {
    loop {
        let metrics = admin_page(node.admin(), "/metrics").await;
        let open =
            metrics.lines().filter(|line| line.starts_with("trunkline_links{") && line.contains("state=\"open\""));
        let open: f64 = open.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        if open >= links {
            return;
        }
        // sleep: the node sends no event when its links open.
        sleep(Duration::from_millis(20)).await;
    }
}

async fn admin_page(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}
