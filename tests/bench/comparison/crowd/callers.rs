//! Clients that ask for an echo, each again as soon as it is answered.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::{Events, Poll};
use trunkline_tests::bench::done::Done;
use trunkline_tests::bench::look::{EVENTS, NAP, READ_BYTES, demand_progress, look_at};

use super::Play;
use super::client::Client;
use crate::dialect::Dialect;
use crate::servers::Servers;

/// All clients.
pub(crate) struct Callers {
    poll: Poll,
    events: Events,
    clients: Vec<Caller>,
    asked: Vec<u8>,
    answered: Vec<u8>,
    scratch: Vec<u8>,
}

struct Caller {
    client: Client,
    /// When it asked; `None` while it has nothing to wait for.
    since: Option<Instant>,
}

impl Callers {
    /// Connects them; `None` where nobody is answered.
    pub(crate) fn gather(servers: &Servers, dialect: Dialect, count: usize, payload: usize) -> Result<Option<Self>> {
        let Some((asked, answered)) = dialect.echo(&"x".repeat(payload)) else { return Ok(None) };
        let poll = Poll::new()?;
        let clients = Client::gather(servers, dialect, count, &poll)?;
        let clients = clients.into_iter().map(|client| Caller { client, since: None }).collect();
        let (events, scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        Ok(Some(Self { poll, events, clients, asked, answered, scratch }))
    }

    /// Reads what is there. Who was answered asks again, if `again`. How many were answered, and are not to ask.
    fn take(&mut self, done: &mut Done, again: bool) -> Result<usize> {
        look_at(&mut self.poll, &mut self.events)?;
        let mut ended = 0;
        for event in &self.events {
            let Some(Caller { client, since }) = self.clients.get_mut(event.token().0) else { continue };
            let mut answered = None;
            client.read(&mut self.scratch, |message| {
                ensure!(message == self.answered, "another answer came than is due");
                answered = Some(since.take().context("nobody had asked")?);
                Ok(())
            })?;
            let Some(asked) = answered else { continue };
            done.note(1, asked.elapsed());
            if again {
                *since = Some(Instant::now());
                client.say(&self.asked)?;
            } else {
                ended += 1;
            }
        }
        Ok(ended)
    }
}

impl Play for Callers {
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        for Caller { client, since } in &mut self.clients {
            *since = Some(Instant::now());
            client.say(&self.asked)?;
        }
        while started.elapsed() < length {
            sleep(NAP);
            self.take(&mut done, true)?;
        }
        let (over, mut waiting) = (Instant::now(), self.clients.len());
        while waiting > 0 {
            demand_progress(over, waiting)?;
            sleep(NAP);
            waiting -= self.take(&mut done, false)?;
        }
        Ok(done)
    }

    fn look(&mut self) -> Result<()> {
        let mut nothing = Done::default();
        self.take(&mut nothing, false)?;
        ensure!(nothing.units == 0, "an echo came twice");
        Ok(())
    }
}
