//! Clients that are there and do nothing, but for what keeps them alive.

use anyhow::{Result, bail};
use mio::{Events, Poll};
use trunkline_tests::bench::look::{EVENTS, READ_BYTES, look_at};

use super::client::Client;
use crate::dialect::Dialect;
use crate::servers::Servers;

/// All clients.
pub(crate) struct Idlers {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    scratch: Vec<u8>,
}

impl Idlers {
    pub(crate) fn gather(servers: &Servers, dialect: Dialect, count: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let clients = Client::gather(servers, dialect, count, &poll)?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS), clients, scratch: vec![0; READ_BYTES] })
    }

    /// Demands that all are still there, and that none has heard anything but keep-alives.
    pub(crate) fn look(&mut self) -> Result<()> {
        look_at(&mut self.poll, &mut self.events)?;
        for event in &self.events {
            let Some(client) = self.clients.get_mut(event.token().0) else { continue };
            client.read(&mut self.scratch, |message| bail!("{:?} came unasked", String::from_utf8_lossy(message)))?;
        }
        Ok(())
    }
}
