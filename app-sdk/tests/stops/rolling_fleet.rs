//! Two app servers and a node before them, in one process, with real sockets between them.

use std::net::SocketAddr;
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
use trunkline_proxy::{Config, Node, ServeArgs};

const KEY: &str = "the access key of these tests";

/// Options of the node, as its command line has them.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArgs,
}

/// An app server that is stopped by a signal.
struct StoppableApp {
    address: SocketAddr,
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

/// Echoes numbers that come in their order, and sends numbers of its own.
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
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server =
            Server::new().access_key(KEY).hub(hub()).raw_endpoint(RawEndpoint::new("/feed", feed).movable(true));
        let handle = server.handle();
        let router = Router::new().merge(server.into_router().unwrap());
        let (signal, stopping) = oneshot::channel();
        let signalled = async move { drop(stopping.await) };
        let serving = tokio::spawn(trunkline::serve(listener, router, &handle).with_signal(signalled).into_future());
        Self { address, signal, serving }
    }

    async fn stop(self) {
        self.signal.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
    }
}

impl RollingFleet {
    pub(crate) async fn start() -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let apps = [StoppableApp::start(anywhere).await, StoppableApp::start(anywhere).await];
        let upstreams = apps.each_ref().map(|app| format!("http://{}", app.address));
        let arguments = [
            "node",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--shards",
            "3",
            "--access-key",
            KEY,
            "--upstream",
            &upstreams[0],
            "--upstream",
            &upstreams[1],
        ];
        let config = Config::try_from(Arguments::try_parse_from(arguments).unwrap().serve).unwrap();
        let fleet = Self { apps: apps.into_iter().map(Some).collect(), node: Node::start(config).await.unwrap() };
        fleet.linked().await;
        fleet
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.node.listen()
    }

    /// Waits until all links are open.
    async fn linked(&self) {
        loop {
            let metrics = admin_page(self.node.admin(), "/metrics").await;
            let open =
                metrics.lines().filter(|line| line.starts_with("trunkline_links{") && line.contains("state=\"open\""));
            let open: f64 = open.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
            if open >= 20.0 {
                return;
            }
            // sleep: the node tells nobody when its links open.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops app servers in order, all at once, and starts others at their addresses.
    pub(crate) async fn replace(&mut self, places: &[usize]) {
        let stopping: Vec<_> = places.iter().map(|&place| self.apps[place].take().unwrap()).collect();
        let addresses: Vec<_> = stopping.iter().map(|app| app.address).collect();
        join_all(stopping.into_iter().map(StoppableApp::stop)).await;
        for (&place, address) in places.iter().zip(addresses) {
            self.apps[place] = Some(StoppableApp::start(address).await);
        }
        self.linked().await;
    }

    pub(crate) async fn stop(self) {
        self.node.stop().await;
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
