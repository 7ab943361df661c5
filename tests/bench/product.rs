//! Product under test: proxies and the app server `bench`, each a process.

use std::iter;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use trunkline_protocol::access_token::{self, TokenTimes};
use trunkline_protocol::key::AccessKey;

use super::child::ChildProcess;
use trunkline_tests::harness::fleet::ACCESS_KEY;
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::profile_folder;
use trunkline_tests::harness::sockets::free_address;

/// Default number of links between a proxy and its app server, as in both programs.
pub const LINKS: u16 = 5;

/// Lifetime of client tokens, longer than a benchmark.
const TOKEN_LIFETIME_S: u64 = 12 * 3600;

const BUILD: &str = "cargo build --profile dist -p trunkline-proxy --features trunkline-proxy/jemalloc --bin trunkline \
                     -p trunkline --example bench -p trunkline-load --bin trunkline-load";

/// Proxies and their app server, stopped on drop, proxies first.
#[derive(Debug)]
pub struct Product {
    proxy: MeasuredProxy,
    others: Vec<MeasuredProxy>,
    app: MeasuredApp,
}

/// Settings of a benchmark's proxies.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Number of proxies, at least one.
    pub proxies: u16,
    /// Threads of each that serve clients.
    pub shards: u16,
    /// Links of each to the app server.
    pub links: u16,
    /// Whether they are connected by `--peers`.
    pub is_fleet: bool,
    /// Whether the app server dials the first proxy, instead of being dialled.
    pub dials_in: bool,
    /// Whether the app server's clients may use stateful reconnect.
    pub is_stateful: bool,
    /// Additional arguments of each proxy.
    pub more: &'a [&'a str],
    /// Additional arguments of the app server, unless it dials in.
    pub app_more: &'a [&'a str],
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        let (is_fleet, dials_in, is_stateful) = (false, false, false);
        Self { proxies: 1, shards: 1, links: LINKS, is_fleet, dials_in, is_stateful, more: &[], app_more: &[] }
    }
}

impl Product {
    /// Starts one proxy and its app server, and waits for all links between them.
    pub fn start(shards: u16) -> Result<Self> {
        Self::start_with(Wanted { shards, links: LINKS, ..Wanted::default() })
    }

    /// Starts proxies and app server with these settings, and waits for all links between them.
    pub fn start_with(wanted: Wanted<'_>) -> Result<Self> {
        let Wanted { proxies, shards, links, is_fleet, dials_in, is_stateful, more, app_more } = wanted;
        let first = NodeAddresses::free()?;
        let stateful: &[&str] = if is_stateful { &["--stateful"] } else { &[] };
        let app = if dials_in {
            MeasuredApp::dialling(first.listen)?
        } else {
            MeasuredApp::start_with(&[stateful, app_more].concat())?
        };
        let peers = if is_fleet { format!("http://{}", first.admin) } else { String::new() };
        let serve = |addresses| {
            let mut trunkline = Command::new(program("trunkline")?);
            trunkline.arg("serve").args(["--peers", &peers]).args(more);
            MeasuredProxy::serve(&app, addresses, shards, links, trunkline)
        };
        let proxy = serve(first)?;
        let others = (1..proxies).map(|_| serve(NodeAddresses::free()?)).collect::<Result<_>>()?;
        Ok(Self { proxy, others, app })
    }

    /// Client address of the first proxy.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// All proxies in order.
    pub fn proxies(&self) -> impl Iterator<Item = &MeasuredProxy> {
        iter::once(&self.proxy).chain(&self.others)
    }

    /// Admin address of the first proxy.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.proxy.admin
    }

    /// Reads the proxy's metrics once.
    pub fn proxy_metrics(&self) -> Result<Metrics> {
        metrics(self.proxy.admin)
    }

    /// Process id of the proxy.
    #[must_use]
    pub fn proxy_pid(&self) -> u32 {
        self.proxy.pid()
    }

    /// Sends a signal to the first proxy.
    pub fn signal_proxy(&mut self, signal: Signal) -> Result<()> {
        self.proxy.process.signal(signal)
    }

    /// Process id of the app server.
    #[must_use]
    pub fn app_pid(&self) -> u32 {
        self.app.pid()
    }

    /// Number of client connections at the app server.
    pub fn app_connections(&self) -> Result<f64> {
        Ok(metrics(self.app.address)?.sum("trunkline_app_connections", &[]))
    }
}

/// App server `bench`, stopped on drop.
#[derive(Debug)]
pub struct MeasuredApp {
    address: SocketAddr,
    /// It dials the proxies, which then have no upstream.
    dials: bool,
    process: ChildProcess,
}

impl MeasuredApp {
    /// Starts it; the proxies wait for it.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts it with an embedded node, which serves clients without a proxy, and waits until it listens.
    pub fn embedded() -> Result<Self> {
        Self::embedded_with(&[])
    }

    /// Like [`embedded`](Self::embedded), but also listens with TLS, configured by these arguments.
    pub fn embedded_with(tls: &[&str]) -> Result<Self> {
        let mut app = Self::start_with(&[&["--embedded"], tls].concat())?;
        app.process.wait_until(|| TcpStream::connect(app.address).is_ok())?;
        Ok(app)
    }

    /// Starts it to dial a proxy itself, once that is available.
    pub fn dialling(proxy: SocketAddr) -> Result<Self> {
        Ok(Self { dials: true, ..Self::start_with(&["--dial", &connection_string(proxy)])? })
    }

    /// Starts it at this address; the proxies wait for it.
    pub fn start_at(address: SocketAddr) -> Result<Self> {
        Self::at(address, &[])
    }

    /// Sends a signal to it. After a freeze, waits until it has stopped.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Stops it like a supervisor and waits for its end.
    pub fn stop(self) -> Result<()> {
        self.process.stop()
    }

    fn start_with(more: &[&str]) -> Result<Self> {
        Self::at(address()?, more)
    }

    fn at(address: SocketAddr, more: &[&str]) -> Result<Self> {
        let mut bench = Command::new(program("examples/bench")?);
        product(&mut bench).args(["--listen", &address.to_string()]).args(more);
        Ok(Self { address, dials: false, process: ChildProcess::start("app server", &mut bench)? })
    }

    /// Listen address of the app server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process id in the system.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

#[derive(Debug, Clone, Copy)]
struct NodeAddresses {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl NodeAddresses {
    fn free() -> Result<Self> {
        Ok(Self { listen: address()?, admin: address()? })
    }
}

/// Running proxy, stopped on drop.
#[derive(Debug)]
pub struct MeasuredProxy {
    address: SocketAddr,
    admin: SocketAddr,
    process: ChildProcess,
}

impl MeasuredProxy {
    /// Starts a proxy for an app server and waits for all links between them.
    pub fn start(app: &MeasuredApp, shards: u16) -> Result<Self> {
        Self::start_with(app, shards, &[])
    }

    /// Like [`start`](Self::start), with additional arguments.
    pub fn start_with(app: &MeasuredApp, shards: u16, more: &[&str]) -> Result<Self> {
        let mut trunkline = Command::new(program("trunkline")?);
        trunkline.arg("serve").args(more);
        Self::serve(app, NodeAddresses::free()?, shards, LINKS, trunkline)
    }

    /// Starts a proxy with its own core and the maximum number of open files.
    pub fn pinned(app: &MeasuredApp, core: u16) -> Result<Self> {
        let mut pinned = Command::new("sh");
        pinned.args(["-c", "ulimit -Sn \"$(ulimit -Hn)\"; exec taskset -c \"$@\"", "sh", &core.to_string()]);
        pinned.arg(program("trunkline")?).arg("serve");
        Self::serve(app, NodeAddresses::free()?, 1, LINKS, pinned)
    }

    /// Starts a proxy for dial-in, alone or as a peer of another one.
    pub fn without_upstream(shards: u16, peer: Option<&Self>) -> Result<Self> {
        let mut trunkline = Command::new(program("trunkline")?);
        trunkline.arg("serve");
        if let Some(peer) = peer {
            trunkline.args(["--peers", &format!("http://{}", peer.admin)]);
        }
        Self::begin(NodeAddresses::free()?, shards, trunkline)
    }

    fn serve(
        app: &MeasuredApp,
        addresses: NodeAddresses,
        shards: u16,
        pool_size: u16,
        mut trunkline: Command,
    ) -> Result<Self> {
        if !app.dials {
            trunkline.args(["--upstream", &format!("http://{}", app.address)]);
        }
        trunkline.args(["--pool-size", &pool_size.to_string()]);
        let mut proxy = Self::begin(addresses, shards, trunkline)?;
        proxy.wait_for_links(pool_size)?;
        Ok(proxy)
    }

    fn begin(addresses: NodeAddresses, shards: u16, mut trunkline: Command) -> Result<Self> {
        let NodeAddresses { listen: address, admin } = addresses;
        product(&mut trunkline).args(["--listen", &address.to_string(), "--admin", &admin.to_string()]);
        trunkline.args(["--shards", &shards.to_string()]);
        Ok(Self { address, admin, process: ChildProcess::start("proxy", &mut trunkline)? })
    }

    /// Waits until it has `wanted` open links to app servers.
    pub fn wait_for_links(&mut self, wanted: u16) -> Result<()> {
        let admin = self.admin;
        self.process.wait_until(|| {
            let links = metrics(admin).map(|metrics| metrics.sum("trunkline_links", &[("state", "open")]));
            links.is_ok_and(|links| links >= f64::from(wanted))
        })
    }

    /// Address that clients use.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of its admin port.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Reads its metrics once.
    pub fn metrics(&self) -> Result<Metrics> {
        metrics(self.admin)
    }

    /// Process id in the system.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// Connection string for an app server that dials a proxy.
#[must_use]
pub fn connection_string(proxy: SocketAddr) -> String {
    format!("Endpoint=http://{};Port={};AccessKey={ACCESS_KEY};Version=1.0;", proxy.ip(), proxy.port())
}

/// Token of an app server that dials in for a hub.
pub fn app_server_token(hub: &str) -> Result<String> {
    let claims =
        [("aud".to_owned(), format!("http://127.0.0.1/server/?hub={hub}")), ("nameid".to_owned(), hub.to_owned())];
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(access_token::sign(&AccessKey::new(ACCESS_KEY)?, "", &claims, TokenTimes::from_now(now_s, TOKEN_LIFETIME_S)))
}

/// Request target for an anonymous client of a dial-in app server's hub, as such app servers give to their clients.
pub fn dial_in_target(hub: &str) -> Result<String> {
    let audience = ("aud".to_owned(), format!("http://127.0.0.1/client/?hub={hub}"));
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let times = TokenTimes::from_now(now_s, TOKEN_LIFETIME_S);
    let token = access_token::sign(&AccessKey::new(ACCESS_KEY)?, "", &[audience], times);
    Ok(format!("/client/?hub={hub}&access_token={token}"))
}

/// Returns an unused address.
pub fn address() -> Result<SocketAddr> {
    Ok(free_address()?.parse()?)
}

/// Path of a measured or measuring program, in the folder of this one.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = profile_folder()?.join(name);
    ensure!(path.is_file(), "{} is missing; this builds it: {BUILD}", path.display());
    Ok(path)
}

/// Prepares a program of the product: removes the user's settings, and logs only errors (at the end of a run, each
/// process would warn about missing others).
fn product(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRUNKLINE_") {
            command.env_remove(name);
        }
    }
    command.env("TRUNKLINE_ACCESS_KEY", ACCESS_KEY).env("TRUNKLINE_LOG", "error").env("RUST_LOG", "error")
}

fn metrics(address: SocketAddr) -> Result<Metrics> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Metrics::of(&address.to_string()))
}
