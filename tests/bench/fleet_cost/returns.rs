//! Clients with stateful reconnect that are cut and reconnect, in sequence.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use trunkline_bench::mover::Mover;
use trunkline_generator::done::Done;
use trunkline_generator::workload::Workload;

/// Node to which clients reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Return {
    /// The node that has their connection.
    Same,
    /// The next node, which takes the connection over.
    Elsewhere,
}

/// Clients that are cut and reconnect, in rotation.
pub(crate) struct Movers {
    nodes: Vec<SocketAddr>,
    comes_back: Rc<Cell<Return>>,
    clients: Vec<Mover>,
    next: usize,
}

impl Movers {
    pub(crate) fn gather(nodes: Vec<SocketAddr>, count: usize, comes_back: Rc<Cell<Return>>) -> Result<Self> {
        let clients = (0..count).map(|client| Mover::connect(&nodes, client % nodes.len())).collect::<Result<_>>()?;
        Ok(Self { nodes, comes_back, clients, next: 0 })
    }
}

impl Workload for Movers {
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        while started.elapsed() < length {
            let place = self.next % self.clients.len();
            self.next += 1;
            let client = self.clients.get_mut(place).context("no client")?;
            let step = usize::from(self.comes_back.get() == Return::Elsewhere);
            done.note(1, client.come_back(&self.nodes, step)?);
        }
        Ok(done)
    }

    fn inspect(&mut self) -> Result<()> {
        Ok(())
    }
}
