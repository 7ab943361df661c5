//! Command line of the example servers, and how they serve and stop.

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
use tracing_subscriber::EnvFilter;
use trunkline::{LogQueue, Server};

use tls::TlsListener;

/// The command line of an example server.
#[derive(Debug, Parser)]
pub(crate) struct ServeArguments {
    /// Where to listen for proxies and browsers
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    listen: String,
    /// Where to listen with TLS, beside --listen
    #[arg(long, value_name = "HOST:PORT", requires_all = ["tls_cert", "tls_key"])]
    tls_listen: Option<String>,
    /// Certificate chain of --tls-listen, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_cert: Option<PathBuf>,
    /// Its private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_key: Option<PathBuf>,
    /// Name of this app server, for people
    #[arg(long)]
    name: Option<String>,
    /// Access key that the proxies have too; TRUNKLINE_ACCESS_KEY and TRUNKLINE_ACCESS_KEY_FILE are read when none is
    /// given
    #[arg(long, value_name = "KEY")]
    access_key: Vec<String>,
    /// `signalr.js` of the npm package @microsoft/signalr, for pages to use in place of our small client
    #[arg(long, value_name = "PATH")]
    client_script: Option<PathBuf>,
    /// Dial proxies (or Azure's service) in place of being dialled:
    /// `Endpoint=https://proxy;AccessKey=KEY;Version=1.0;`
    #[arg(long, value_name = "CONNECTION STRING")]
    dial: Vec<String>,
    /// Serve clients too, without a proxy in front
    #[cfg(feature = "embedded")]
    #[arg(long)]
    embedded: bool,
}

/// Reads the command line, which may hold more than these arguments, and sends logs to stderr.
pub(crate) fn read<A: Parser>() -> A {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = log();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.writer()).with_ansi(log.has_colours()).init();
    A::parse()
}

/// Log on stderr. Threads of its own write the lines, so that a reader that hangs stops nothing.
#[expect(clippy::expect_used, reason = "a system without a thread for the log has none for the app")]
pub(crate) fn log() -> &'static LogQueue {
    static LOG: LazyLock<LogQueue> = LazyLock::new(|| LogQueue::stderr().expect("a thread for the log"));
    &LOG
}

impl ServeArguments {
    /// The name of this app server.
    pub(crate) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| std::env::var("HOSTNAME").unwrap_or_else(|_| "app".into()))
    }

    /// Serves the hubs of `server`, `routes`, `/signalr.js`, `/metrics` and `/readyz`, until Ctrl-C or SIGTERM.
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
            // For probes, such as `trunkline health --admin http://HOST:PORT`: a server that answers is ready.
            .route("/readyz", get(async || "ready\n"))
            .merge(server.into_router()?);
        // `trunkline::serve` refuses this too, but knows only its own listener.
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
            // The tap does nothing, but with one axum knows how to tell where connections come from.
            let service = app.clone().into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener.tap_io(|_| ()), service).with_graceful_shutdown(stop.clone().cancelled_owned()).await
        };
        let served = tokio::try_join!(plain, secure).context("a listener failed");
        log().flush();
        served.map(|_| ())
    }

    /// Client script that pages load: the official one if it was given, else our small one with the same names.
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

#[expect(clippy::print_stdout, reason = "scripts read this line to learn that the server is up")]
fn announce(scheme: &str, address: SocketAddr) {
    println!("listening on {scheme}://{address}");
}
