//! Nodes, their clients, and a window of work.

use std::cell::Cell;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trunkline_bench::product::{MeasuredProxy, Product, Wanted};
use trunkline_generator::callers::Callers;
use trunkline_generator::connect;
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::receivers::Receivers;
use trunkline_generator::workload::{Workload, settle};

use crate::entry::{ADMIN_TOKEN, Announcer, Entry, EntryPublisher, GROUP, HUB};
use crate::figures::{Part, Window};
use crate::returns::{Movers, Return};
use crate::settings::{Settings, Work};
use crate::{between, entry};

const LINKS: u16 = 5;

/// Warm-up of caches and buffers, short compared with a window.
const WARM_UP: Duration = Duration::from_millis(300);

/// Time limit for nodes to find each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Polling interval of that check.
const LOOK: Duration = Duration::from_millis(100);

/// Setups measured in adjacent windows.
pub(crate) struct Pair {
    base: Scene,
    /// Separate nodes for the subject, if they differ from the base.
    subject: Option<Scene>,
    work: Work,
    length: Duration,
}

impl Pair {
    /// Starts all nodes and connects all clients.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let (base, subject) = match settings.work {
            Work::Broadcast | Work::Group => (Scene::start(settings, Kind::Fleet)?, None),
            Work::Idle | Work::Plain => {
                (Scene::start(settings, Kind::Plain)?, Some(Scene::start(settings, Kind::Fleet)?))
            }
            Work::Door | Work::DialInCalls => {
                (Scene::start(settings, Kind::Plain)?, Some(Scene::start(settings, Kind::Door)?))
            }
            Work::Move => (Scene::start(settings, Kind::StatefulFleet)?, None),
            Work::Stateful => (Scene::start(settings, Kind::Plain)?, Some(Scene::start(settings, Kind::Stateful)?)),
        };
        Ok(Self { base, subject, work: settings.work, length: Duration::from_secs(settings.seconds().into()) })
    }

    pub(crate) fn window(&mut self, part: Part) -> Result<Window> {
        let is_subject = part == Part::Subject;
        let scene = if is_subject { self.subject.as_mut().unwrap_or(&mut self.base) } else { &mut self.base };
        let enters_at_node = is_subject && matches!(self.work, Work::Broadcast | Work::Group);
        scene.entry.set(if enters_at_node { Entry::Node } else { Entry::App });
        scene.comes_back.set(if is_subject { Return::Elsewhere } else { Return::Same });
        scene.window(self.length)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nodes without peers, which dial the app server.
    Plain,
    Fleet,
    Door,
    Stateful,
    StatefulFleet,
}

/// Nodes with clients, distributed round robin.
struct Scene {
    product: Product,
    /// Clients, unless the nodes are idle.
    crowd: Option<Box<dyn Workload>>,
    entry: Rc<Cell<Entry>>,
    comes_back: Rc<Cell<Return>>,
    /// Ports of this process's connections to admin ports.
    own: Vec<u16>,
}

impl Scene {
    fn start(settings: &Settings, kind: Kind) -> Result<Self> {
        let is_stateful = matches!(kind, Kind::Stateful | Kind::StatefulFleet);
        let (is_fleet, dials_in) = (matches!(kind, Kind::Fleet | Kind::StatefulFleet), kind == Kind::Door);
        let more = &["--admin-token", ADMIN_TOKEN];
        let (proxies, shards) = (settings.nodes(), settings.shards);
        let wanted = Wanted { proxies, shards, links: LINKS, is_fleet, dials_in, is_stateful, more, app_more: &[] };
        let product = Product::start_with(wanted)?;
        if is_fleet {
            product.proxies().try_for_each(|node| agrees(node, proxies))?;
        }
        let entry = Rc::new(Cell::new(Entry::App));
        let comes_back = Rc::new(Cell::new(Return::Same));
        let mut scene = Self { product, crowd: None, entry, comes_back, own: Vec::new() };
        let target = if dials_in { entry::dial_in_target()? } else { HUB.to_owned() };
        match settings.work {
            Work::Idle => {}
            Work::Move => {
                let nodes = scene.product.proxies().map(MeasuredProxy::address).collect();
                let movers = Movers::gather(nodes, settings.clients() as usize, Rc::clone(&scene.comes_back))?;
                scene.crowd = Some(Box::new(movers));
            }
            Work::DialInCalls => scene.crowd = Some(Box::new(scene.gather_callers(settings, &target)?)),
            _ => scene.crowd = Some(Box::new(scene.gather(settings, &target)?)),
        }
        Ok(scene)
    }

    fn gather_callers(&self, settings: &Settings, target: &str) -> Result<Callers<Hub>> {
        let address = self.product.address();
        Callers::gather(settings.clients() as usize, entry::echo(settings.payload as usize), |_| {
            let (socket, early) = connect::to_hub(address, target, "")?;
            Ok((socket, Hub::Json, early))
        })
    }

    fn gather(&mut self, settings: &Settings, target: &str) -> Result<Receivers<Hub, EntryPublisher>> {
        let is_to_group = settings.work == Work::Group;
        let mut addresses: Vec<SocketAddr> = self.product.proxies().map(MeasuredProxy::address).collect();
        let caller = Cell::new(None);
        let connect = |_| {
            // Round robin: the next client connects to the next node.
            addresses.rotate_left(1);
            let address = *addresses.first().context("no node")?;
            let (socket, early) = connect::to_hub(address, target, "")?;
            let (socket, early) = if is_to_group { join(socket, early)? } else { (socket, early) };
            let handle = caller.take().map_or_else(|| socket.try_clone(), Ok)?;
            caller.set(Some(handle));
            Ok((socket, Hub::Json, early))
        };
        let announcer = Announcer::connect(self.product.admin())?;
        self.own.push(announcer.port()?);
        let publisher = || {
            Ok(EntryPublisher {
                entry: Rc::clone(&self.entry),
                caller: caller.take().context("no client")?,
                announcer,
                is_to_group,
                payload: settings.payload as usize,
                burst: settings.burst,
            })
        };
        Receivers::gather(settings.clients() as usize, connect, publisher)
    }

    fn window(&mut self, length: Duration) -> Result<Window> {
        if let Some(crowd) = &mut self.crowd {
            crowd.run_for(WARM_UP)?;
            settle(&mut **crowd)?;
        }
        let pids: Vec<u32> = self.product.proxies().map(MeasuredProxy::pid).collect();
        let admins: Vec<SocketAddr> = self.product.proxies().map(MeasuredProxy::admin).collect();
        let app = self.product.app_pid();
        let before = (CpuTime::of_all(&pids)?, CpuTime::of(app)?, between::sent(&admins, &self.own)?);
        let started = Instant::now();
        let (units, p50_us, p99_us) = match &mut self.crowd {
            Some(crowd) => {
                let done = crowd.run_for(length)?;
                settle(&mut **crowd)?;
                (done.units, done.percentile(50), done.percentile(99))
            }
            None => {
                sleep(length);
                (length.as_secs() * pids.len() as u64, 0, 0)
            }
        };
        Ok(Window {
            units,
            cpu_ns: CpuTime::of_all(&pids)?.since(&before.0),
            app_cpu_ns: CpuTime::of(app)?.since(&before.1),
            bytes: between::sent(&admins, &self.own)?.saturating_sub(before.2),
            wall_ns: u64::try_from(started.elapsed().as_nanos())?,
            p50_us,
            p99_us,
        })
    }
}

/// Waits until a node sees all others, and their views agree.
fn agrees(node: &MeasuredProxy, nodes: u16) -> Result<()> {
    let started = Instant::now();
    loop {
        let metrics = node.metrics()?;
        let ready = metrics.sum("trunkline_fleet_nodes", &[("state", "ready")]);
        if ready >= f64::from(nodes) && metrics.sum("trunkline_fleet_agree", &[]) > 0.0 {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "a node sees {ready} nodes that are ready, of {nodes}");
        sleep(LOOK);
    }
}

/// Joins the group and waits for the acknowledgement.
fn join(mut socket: TcpStream, early: Vec<u8>) -> Result<(TcpStream, Vec<u8>)> {
    let call = format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Join\",\"arguments\":[\"{GROUP}\"]}}\x1e");
    socket.write_all(&Hub::Json.frame(call.as_bytes()))?;
    let (_, early) = connect::next_message(&mut socket, early, Hub::Json).context("joining the group")?;
    Ok((socket, early))
}
