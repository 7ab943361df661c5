//! Crowds of calling, idle or visiting clients.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use trunkline_generator::callers::Callers;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::idlers::Idlers;
use trunkline_generator::origin::Origins;
use trunkline_generator::residents::Residents;
use trunkline_generator::visitors::{Arrivals, Visitors};
use trunkline_generator::welcome::HubWelcome;

use super::connect;
use crate::arguments::{At, CrowdArguments};
use crate::server::Server;
use crate::work;

/// Clients that call `Echo`, distributed over the addresses.
pub(super) fn callers(server: &Server, arguments: &CrowdArguments) -> Result<Callers<Hub>> {
    let mut addresses = server.addresses();
    Callers::gather(arguments.clients, work::echo_call(arguments.payload), |_| {
        connect::to(arguments.at, addresses.next().context("no server")?)
    })
}

/// Clients that only keep their connections alive.
pub(super) fn idlers(at: At, address: SocketAddr, count: usize) -> Result<Idlers<Hub>> {
    Idlers::gather(count, |_| connect::to(at, address))
}

/// Clients that connect and disconnect.
pub(super) fn visitors(server: &Server, arguments: &CrowdArguments) -> Result<Visitors<HubArrivals>> {
    Visitors::new(arguments.clients, HubArrivals::at(server.address()))
}

/// Clients that connect and stay.
pub(super) fn residents(server: &Server, arguments: &CrowdArguments) -> Result<Residents<HubArrivals, Hub>> {
    let arrivals = HubArrivals { origins: Some(Origins::default()), ..HubArrivals::at(server.address()) };
    Residents::new(arguments.clients, arguments.under_way, Hub::Json, arrivals)
}

pub(super) struct HubArrivals {
    address: SocketAddr,
    upgrade: Vec<u8>,
    /// Source addresses of clients; otherwise the system chooses.
    origins: Option<Origins>,
}

impl HubArrivals {
    fn at(address: SocketAddr) -> Self {
        Self { address, upgrade: work::upgrade_request().into_bytes(), origins: None }
    }
}

impl Arrivals for HubArrivals {
    type Welcome = HubWelcome;

    fn open(&mut self, _place: usize) -> Result<TcpStream> {
        match &mut self.origins {
            Some(origins) => origins.connect(self.address),
            None => trunkline_generator::connect::open(self.address),
        }
    }

    fn upgrade(&self) -> &[u8] {
        &self.upgrade
    }

    fn welcome(&self) -> HubWelcome {
        HubWelcome::new(Hub::Json)
    }
}
