//! Server processes of one peer, and their addresses for clients.

use std::net::SocketAddr;

use anyhow::Result;
use trunkline_bench::child::Speaker;
use trunkline_bench::product::{self, MeasuredApp, MeasuredProxy};
use trunkline_generator::upgrade;

use crate::certificate::Certificate;
use crate::dialect::Dialect;
use crate::peer::Peer;
use crate::service::{Folder, Service};

/// Client threads of each proxy: two proxies on two cores, as on separate machines.
const SHARDS: u16 = 1;

/// Hub of the .NET app, and the links that the app opens to each proxy: five for each of its two hubs.
const HUB: &str = "bench";
const DOTNET_LINKS: u16 = 10;

/// Running servers, stopped on drop.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    /// Addresses for clients, used in rotation.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Target of client requests, if not the protocol's default.
    target: Option<String>,
    /// Certificate of these addresses, for clients with TLS.
    pub(crate) certificate: Option<Certificate>,
    /// Names and ids of the measured processes.
    pub(crate) processes: Vec<(String, u32)>,
    /// Dropped in this order, front servers first.
    _held: Vec<Held>,
}

/// Process or folder, ended or removed on drop.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its end")]
enum Held {
    App(MeasuredApp),
    Proxy(MeasuredProxy),
    FanOut(Speaker),
    Service(Service),
    Folder(Folder),
}

impl Servers {
    /// Starts all servers of a peer and waits until clients can connect.
    pub(crate) fn start(peer: Peer) -> Result<Self> {
        match peer {
            Peer::Trunkline => Self::trunkline(),
            Peer::Embedded => Self::embedded(),
            Peer::Kestrel => Self::kestrel(),
            Peer::KestrelRedis => Self::kestrel_redis(),
            Peer::Dotnet => Self::dotnet(1),
            Peer::DotnetFleet => Self::dotnet(2),
            Peer::TrunklineTls => Self::trunkline_tls(),
            Peer::EmbeddedTls => Self::embedded_tls(),
            Peer::HaproxyTls => Self::before_embedded("haproxy", Service::haproxy_tls),
            Peer::NginxTls => Self::before_embedded("nginx", Service::nginx_tls),
            Peer::Axum => Self::axum(),
            Peer::Haproxy => Self::haproxy(),
            Peer::Ws => Self::script("ws.mjs"),
            Peer::Socketio => Self::script("socketio.mjs"),
            Peer::SocketioRedis => Self::socketio_redis(),
            Peer::Nchan => Self::nchan(),
            Peer::Centrifuge => Self::centrifuge(),
        }
    }

    pub(crate) fn upgrade(&self, dialect: Dialect) -> Vec<u8> {
        let target = self.target.as_deref().unwrap_or(dialect.target());
        upgrade::request("localhost", target, "").into_bytes()
    }

    /// ASP.NET Core app with the package of the Azure SignalR Service, and the proxies that it dials.
    fn dotnet(proxies: u16) -> Result<Self> {
        let (mut fleet, mut processes): (Vec<MeasuredProxy>, _) = (Vec::new(), Vec::new());
        for number in 1..=proxies {
            let proxy = MeasuredProxy::without_upstream(SHARDS, fleet.first())?;
            processes.push((format!("proxy-{number}"), proxy.pid()));
            fleet.push(proxy);
        }
        let addresses: Vec<_> = fleet.iter().map(MeasuredProxy::address).collect();
        let app = Service::dotnet(product::address()?, &addresses)?;
        processes.push(("app".into(), app.id()));
        fleet.iter_mut().try_for_each(|proxy| proxy.wait_for_links(DOTNET_LINKS))?;
        let mut held = vec![Held::Service(app)];
        held.extend(fleet.into_iter().map(Held::Proxy));
        Ok(Self { addresses, target: Some(product::dial_in_target(HUB)?), processes, _held: held, ..Self::default() })
    }

    fn trunkline() -> Result<Self> {
        let app = MeasuredApp::start()?;
        let [first, second] = [MeasuredProxy::start(&app, SHARDS)?, MeasuredProxy::start(&app, SHARDS)?];
        Ok(Self {
            addresses: vec![first.address(), second.address()],
            processes: named([("proxy-1", first.pid()), ("proxy-2", second.pid()), ("app", app.pid())]),
            _held: vec![Held::Proxy(first), Held::Proxy(second), Held::App(app)],
            ..Self::default()
        })
    }

    fn trunkline_tls() -> Result<Self> {
        let (folder, app) = (Folder::new()?, MeasuredApp::start()?);
        let certificate = Certificate::new(folder.path())?;
        let addresses = vec![product::address()?, product::address()?];
        let (mut processes, mut held) = (named([("app", app.pid())]), Vec::new());
        for (number, address) in (1..).zip(&addresses) {
            let proxy = MeasuredProxy::start_with(&app, SHARDS, &tls(&address.to_string(), &certificate))?;
            processes.push((format!("proxy-{number}"), proxy.pid()));
            held.push(Held::Proxy(proxy));
        }
        held.extend([Held::App(app), Held::Folder(folder)]);
        Ok(Self { addresses, certificate: Some(certificate), processes, _held: held, ..Self::default() })
    }

    fn embedded_tls() -> Result<Self> {
        let (folder, address) = (Folder::new()?, product::address()?);
        let certificate = Certificate::new(folder.path())?;
        let app = MeasuredApp::embedded_with(&tls(&address.to_string(), &certificate))?;
        Ok(Self {
            addresses: vec![address],
            certificate: Some(certificate),
            processes: named([("app", app.pid())]),
            _held: vec![Held::App(app), Held::Folder(folder)],
            ..Self::default()
        })
    }

    /// Server that terminates TLS in front of an app server with an embedded node.
    fn before_embedded(
        name: &str,
        start: impl Fn(SocketAddr, SocketAddr, &Certificate, &Folder) -> Result<Service>,
    ) -> Result<Self> {
        let (folder, app, address) = (Folder::new()?, MeasuredApp::embedded()?, product::address()?);
        let certificate = Certificate::new(folder.path())?;
        let front = start(address, app.address(), &certificate, &folder)?;
        let mut processes = named([(name, front.id()), ("app", app.pid())]);
        let workers = (1..).zip(front.children()?);
        processes.extend(workers.map(|(number, id)| (format!("{name}-worker-{number}"), id)));
        Ok(Self {
            addresses: vec![address],
            certificate: Some(certificate),
            processes,
            _held: vec![Held::Service(front), Held::App(app), Held::Folder(folder)],
            ..Self::default()
        })
    }

    fn embedded() -> Result<Self> {
        let app = MeasuredApp::embedded()?;
        Ok(Self {
            addresses: vec![app.address()],
            processes: named([("app", app.pid())]),
            _held: vec![Held::App(app)],
            ..Self::default()
        })
    }

    fn kestrel() -> Result<Self> {
        let address = product::address()?;
        let kestrel = Service::kestrel(address, None)?;
        Ok(Self {
            addresses: vec![address],
            processes: named([("kestrel", kestrel.id())]),
            _held: vec![Held::Service(kestrel)],
            ..Self::default()
        })
    }

    fn kestrel_redis() -> Result<Self> {
        Self::around_redis("kestrel", |address, between| Service::kestrel(address, Some(between)))
    }

    fn axum() -> Result<Self> {
        let (address, fan_out) = fan_out()?;
        Ok(Self {
            addresses: vec![address],
            processes: named([("axum", fan_out.id())]),
            _held: vec![Held::FanOut(fan_out)],
            ..Self::default()
        })
    }

    fn haproxy() -> Result<Self> {
        let ((behind, fan_out), folder, address) = (fan_out()?, Folder::new()?, product::address()?);
        let haproxy = Service::haproxy(address, behind, &folder)?;
        Ok(Self {
            addresses: vec![address],
            processes: named([("haproxy", haproxy.id()), ("axum", fan_out.id())]),
            _held: vec![Held::Service(haproxy), Held::FanOut(fan_out), Held::Folder(folder)],
            ..Self::default()
        })
    }

    fn script(script: &str) -> Result<Self> {
        let address = product::address()?;
        let node = Service::node(script, address, &[])?;
        Ok(Self {
            addresses: vec![address],
            processes: named([("node", node.id())]),
            _held: vec![Held::Service(node)],
            ..Self::default()
        })
    }

    fn socketio_redis() -> Result<Self> {
        Self::around_redis("node", |address, between| {
            Service::node("socketio.mjs", address, &[between.port().to_string()])
        })
    }

    /// Redis, and two processes that exchange their clients' messages through it.
    fn around_redis(name: &str, start: impl Fn(SocketAddr, SocketAddr) -> Result<Service>) -> Result<Self> {
        let (folder, between) = (Folder::new()?, product::address()?);
        let redis = Service::redis(between, &folder)?;
        let addresses = vec![product::address()?, product::address()?];
        let mut processes = named([("redis", redis.id())]);
        let mut held = Vec::new();
        for (number, address) in (1..).zip(&addresses) {
            let server = start(*address, between)?;
            processes.push((format!("{name}-{number}"), server.id()));
            held.push(Held::Service(server));
        }
        held.extend([Held::Service(redis), Held::Folder(folder)]);
        Ok(Self { addresses, processes, _held: held, ..Self::default() })
    }

    fn centrifuge() -> Result<Self> {
        let address = product::address()?;
        let centrifuge = Service::centrifuge(address)?;
        Ok(Self {
            addresses: vec![address],
            processes: named([("centrifuge", centrifuge.id())]),
            _held: vec![Held::Service(centrifuge)],
            ..Self::default()
        })
    }

    fn nchan() -> Result<Self> {
        let (folder, address) = (Folder::new()?, product::address()?);
        let nginx = Service::nginx(address, &folder)?;
        let workers = (1..).zip(nginx.children()?).map(|(number, id)| (format!("worker-{number}"), id));
        Ok(Self {
            addresses: vec![address],
            processes: workers.chain(named([("master", nginx.id())])).collect(),
            _held: vec![Held::Service(nginx), Held::Folder(folder)],
            ..Self::default()
        })
    }
}

fn tls<'a>(address: &'a str, certificate: &'a Certificate) -> [&'a str; 6] {
    ["--tls-listen", address, "--tls-cert", &certificate.chain, "--tls-key", &certificate.key]
}

fn fan_out() -> Result<(SocketAddr, Speaker)> {
    let address = product::address()?;
    Ok((address, Speaker::start("axum server", &["fan-out", "--listen", &address.to_string()])?))
}

fn named<const N: usize>(processes: [(&str, u32); N]) -> Vec<(String, u32)> {
    processes.map(|(name, id)| (name.to_owned(), id)).into()
}
