//! Command line, startup and shutdown of the example servers.

#[path = "tls.rs"]
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::serve::{Listener, ListenerExt};
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use trunkline::{LogQueue, Server};

use tls::TlsListener;

/// Command line of an example server.
#[derive(Debug, Parser)]
pub(crate) struct ServeArguments {
    /// Listen address for proxies and browsers
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    listen: String,
    /// Additional listen address with TLS
    #[arg(long, value_name = "HOST:PORT", requires_all = ["tls_cert", "tls_key"])]
    tls_listen: Option<String>,
    /// Certificate chain of --tls-listen, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_key: Option<PathBuf>,
    /// Name of this app server, for display
    #[arg(long)]
    name: Option<String>,
    /// Access key shared with the proxies. Without it, TRUNKLINE_ACCESS_KEY and TRUNKLINE_ACCESS_KEY_FILE are read
    #[arg(long, value_name = "KEY")]
    access_key: Vec<String>,
    /// Path of `signalr.js` from the npm package @microsoft/signalr, to replace the small built-in client
    #[arg(long, value_name = "PATH")]
    client_script: Option<PathBuf>,
    /// Dial proxies (or Azure SignalR) instead of accepting links:
    /// `Endpoint=https://proxy;AccessKey=KEY;Version=1.0;`
    #[arg(long, value_name = "CONNECTION STRING")]
    dial: Vec<String>,
    /// Also serve clients directly, without a proxy
    #[cfg(feature = "embedded")]
    #[arg(long)]
    embedded: bool,
}

/// Parses the command line, which may have further arguments, and starts logging to stderr.
pub(crate) fn read<A: Parser>() -> A {
    let log = log();
    let lines = tracing_subscriber::fmt::layer().with_writer(log.writer()).with_ansi(log.has_colours());
    tracing_subscriber::registry().with(lines.with_filter(levels())).init();
    A::parse()
}

/// Log levels from `RUST_LOG`; `info` without it.
pub(crate) fn levels() -> Targets {
    let given = std::env::var("RUST_LOG").unwrap_or_default();
    let given: Vec<_> = given.split(',').map(str::trim).filter(|level| !level.is_empty()).collect();
    let levels = given.join(",").parse().ok().filter(|_| !given.is_empty());
    levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}

/// Log queue on stderr. Its own threads write the lines, so a reader that hangs does not block the app.
#[expect(clippy::expect_used, reason = "without a thread for the log the system cannot run the app either")]
pub(crate) fn log() -> &'static LogQueue {
    static LOG: LazyLock<LogQueue> = LazyLock::new(|| LogQueue::stderr().expect("a thread for the log"));
    &LOG
}

impl ServeArguments {
    /// Name of this app server.
    pub(crate) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| std::env::var("HOSTNAME").unwrap_or_else(|_| "app".into()))
    }

    /// Serves the hubs of `server`, `routes`, `/signalr.js`, `/metrics` and `/readyz` until Ctrl-C or SIGTERM.
    pub(crate) async fn serve(self, mut server: Server, routes: Router) -> anyhow::Result<()> {
        let listener = self.bind().await?;
        let tls_listener = self.bind_tls().await?;
        let address = listener.local_addr()?;
        let tls_address = tls_listener.as_ref().map(TlsListener::local_addr).transpose()?;
        server = server.name(self.name());
        for key in &self.access_key {
            server = server.access_key(key);
        }
        for service in &self.dial {
            server = server.dial(service);
        }
        #[cfg(feature = "embedded")]
        if self.embedded {
            server = server.embedded();
        }
        let handle = server.handle();
        let script = self.script()?;
        let app = routes
            .route("/signalr.js", get(async || ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], script)))
            .route("/metrics", handle.metrics())
            // For probes such as `trunkline health --admin http://HOST:PORT`. A server that responds is ready.
            .route("/readyz", get(async || "ready\n"))
            .merge(server.into_router()?);
        // `trunkline::serve` makes this check only for its own listener, not for the TLS listener.
        let is_open = |address: &SocketAddr| !address.ip().is_loopback();
        if handle.uses_development_key()
            && let Some(address) = [address].into_iter().chain(tls_address).find(is_open)
        {
            bail!("{address} is open to other machines: give --access-key (`trunkline token key` makes one)");
        }
        announce("http", address);
        tls_address.into_iter().for_each(|address| announce("https", address));
        let stop = CancellationToken::new();
        let plain = async {
            let _stop = stop.clone().drop_guard();
            let serving = trunkline::serve(listener, app.clone(), &handle);
            #[cfg(feature = "embedded")]
            let serving = serving.direct_websockets();
            serving.await
        };
        let secure = async {
            let Some(listener) = tls_listener else { return Ok(()) };
            // The tap does nothing, but axum needs it to provide the peer address of connections.
            let service = app.clone().into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener.tap_io(|_| ()), service).with_graceful_shutdown(stop.clone().cancelled_owned()).await
        };
        let served = tokio::try_join!(plain, secure).context("a listener failed");
        log().flush();
        served.map(|_| ())
    }

    /// Client script for the pages: the official one if given, otherwise a small built-in one with the same API.
    fn script(&self) -> anyhow::Result<String> {
        match &self.client_script {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("can't read --client-script {}", path.display()))
            }
            None => Ok(include_str!("../pages/signalr.js").to_owned()),
        }
    }

    async fn bind(&self) -> anyhow::Result<TcpListener> {
        let listen = &self.listen;
        trunkline::listen(listen.as_str())
            .await
            .with_context(|| format!("can't listen on {listen}: choose another address with --listen host:port"))
    }

    async fn bind_tls(&self) -> anyhow::Result<Option<TlsListener>> {
        let (Some(listen), Some(certificate), Some(key)) = (&self.tls_listen, &self.tls_cert, &self.tls_key) else {
            return Ok(None);
        };
        TlsListener::bind(listen, certificate, key).await.map(Some)
    }
}

#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
fn announce(scheme: &str, address: SocketAddr) {
    println!("listening on {scheme}://{address}");
}
