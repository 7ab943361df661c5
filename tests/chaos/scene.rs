//! Fleet under test, and injection of faults.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::Fixture;
use trunkline_tests::harness::sockets::free_address;

use crate::fault::Fault;
use crate::relay::{Relay, Spoil};
use crate::world::World;

/// Messages confirmed by an app server within this time before it was killed may be lost.
const IN_QUEUES: Duration = Duration::from_secs(1);

/// Shorter than each timeout after which a process is considered dead.
const FROZEN: Duration = Duration::from_secs(3);

/// Processes of a run, and relays between proxies and app servers.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    fixture: &'a Fixture,
    pub(crate) proxies: Vec<Proxy>,
    apps: Vec<AppServer>,
    relays: Vec<Relay>,
    no_app: Duration,
    made: usize,
}

impl<'a> Scene<'a> {
    /// Starts everything. `no_app` is the duration of that fault.
    pub(crate) async fn start(
        fixture: &'a Fixture,
        proxies: usize,
        apps: usize,
        drain_timeout: Duration,
        no_app: Duration,
    ) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let mut scene = Self { fixture, proxies: Vec::new(), apps: Vec::new(), relays: Vec::new(), no_app, made: 0 };
        for _ in 0..apps {
            let app = fleet.app(App::Bench).await?;
            scene.relays.push(Relay::start(app.address()).await?);
            scene.apps.push(app);
        }
        let upstreams: Vec<&str> = scene.relays.iter().map(Relay::address).collect();
        let drain_timeout = drain_timeout.as_secs().to_string();
        for number in 0..proxies {
            let name = format!("chaos-{number}");
            let more = ["--node-name", &name, "--drain-timeout", &drain_timeout];
            let mut proxy = fleet.proxy_of(&free_address()?, &free_address()?, &upstreams, &more)?;
            proxy.ready().await?;
            scene.proxies.push(proxy);
        }
        Ok(scene)
    }

    /// Injects a fault, each time into another process; returns when all processes run again.
    pub(crate) async fn make(&mut self, world: &World, fault: Fault) -> Result<()> {
        let turn = self.made;
        self.made += 1;
        let (proxy, app) = (turn % self.proxies.len(), turn % self.apps.len());
        world.tally.begin(fault, Some(proxy));
        match fault {
            Fault::DrainProxy => {
                self.proxies[proxy].process.signal(Signal::Terminate).await?;
                let status = self.proxies[proxy].process.ended().await?;
                ensure!(status.success(), "a drained proxy ended with {status}");
                self.proxies[proxy].start_again(self.fixture).await
            }
            Fault::KillProxy => {
                self.proxies[proxy].process.kill().await?;
                self.proxies[proxy].start_again(self.fixture).await
            }
            Fault::FreezeProxy => freeze(&self.proxies[proxy].process).await,
            Fault::FreezeApp => freeze(&self.apps[app].process).await,
            Fault::CutLink => self.spoil(app, Spoil::Cut),
            Fault::CutLinkInside => self.spoil(app, Spoil::CutInside),
            Fault::DeafenLink => self.spoil(app, Spoil::Deafen),
            Fault::StopApp => {
                self.apps[app].process.signal(Signal::Terminate).await?;
                self.apps[app].process.ended().await?;
                self.relays[app].close().await;
                self.start_app(app).await
            }
            Fault::KillApp => {
                self.kill_app(world, app).await?;
                self.start_app(app).await
            }
            Fault::NoApp => {
                for app in 0..self.apps.len() {
                    self.kill_app(world, app).await?;
                }
                tokio::time::sleep(self.no_app).await;
                for app in 0..self.apps.len() {
                    self.start_app(app).await?;
                }
                Ok(())
            }
        }
    }

    pub(crate) async fn linked(&self) -> Result<()> {
        let links = self.apps.len() * POOL_SIZE;
        for proxy in &self.proxies {
            proxy.linked(links).await?;
        }
        Ok(())
    }

    fn spoil(&self, app: usize, spoil: Spoil) -> Result<()> {
        ensure!(self.relays[app].spoil(self.made * 7, spoil), "no link is open");
        Ok(())
    }

    async fn kill_app(&mut self, world: &World, app: usize) -> Result<()> {
        self.relays[app].close().await;
        self.apps[app].process.kill().await?;
        world.ledger.doubt_since(Instant::now().checked_sub(IN_QUEUES).unwrap_or_else(Instant::now));
        Ok(())
    }

    async fn start_app(&mut self, app: usize) -> Result<()> {
        self.apps[app].start_again(self.fixture).await?;
        self.relays[app].open().await
    }
}

async fn freeze(process: &Process) -> Result<()> {
    process.signal(Signal::Freeze).await?;
    tokio::time::sleep(FROZEN).await;
    process.signal(Signal::Thaw).await
}
