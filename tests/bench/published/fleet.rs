//! App server and two proxies, each proxy with its own core.
//!
//! They are children of a separate process that ends with its input, so that none remains however this command ends.

use std::io;
use std::net::SocketAddr;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use trunkline_bench::child::{READY, Speaker};
use trunkline_bench::cores;
use trunkline_bench::product::{MeasuredApp, MeasuredProxy};
use trunkline_tests::harness::command::print_line;

const PROXIES: usize = 2;

/// Running processes, stopped on drop.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Addresses and processes of the fleet.
    pub(crate) parts: Parts,
    _process: Speaker,
}

/// Client addresses and processes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parts {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) processes: Vec<(String, u32)>,
}

impl Fleet {
    /// Starts the fleet and waits for all links.
    pub(crate) fn start() -> Result<Self> {
        let mut process = Speaker::start("fleet", &["fleet"])?;
        Ok(Self { parts: serde_json::from_str(&process.ask("")?)?, _process: process })
    }
}

/// Parent process of the fleet: prints its parts on request.
pub(crate) fn serve() -> Result<()> {
    let app = MeasuredApp::start()?;
    // With fewer cores than proxies, they share cores.
    let cores = cores::allowed()?.into_iter().cycle();
    let proxies: Vec<MeasuredProxy> =
        cores.take(PROXIES).map(|core| MeasuredProxy::pinned(&app, core)).collect::<Result<_>>()?;
    let processes = (1..).zip(&proxies).map(|(number, proxy)| (format!("proxy-{number}"), proxy.pid()));
    let parts = Parts {
        servers: proxies.iter().map(MeasuredProxy::address).collect(),
        processes: processes.chain([("app".to_owned(), app.pid())]).collect(),
    };
    let text = serde_json::to_string(&parts)?;
    print_line(READY);
    io::stdin().lines().try_for_each(|line| line.map(|_| print_line(&text)))?;
    Ok(())
}
