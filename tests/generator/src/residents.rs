//! Clients that connect and stay until they are all disconnected: a storm, with a limit of concurrent connects.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::client::Client;
use crate::crowd::{Crowd, NAP, PROGRESS_TIMEOUT};
use crate::done::Done;
use crate::frame_protocol::FrameProtocol;
use crate::visitors::{Arrivals, Visitor};
use crate::workload::Workload;

/// Slot of a client.
///
/// ```text
///  Empty ──socket, upgrade──► Coming ──welcome──► In ──all leave──► Empty
/// ```
#[derive(Debug)]
enum Place<W, S> {
    Empty,
    Coming(Visitor<W>),
    In(Client<S>),
}

/// All clients, by slot.
#[derive(Debug)]
pub struct Residents<A: Arrivals, S> {
    arrivals: A,
    frame_protocol: S,
    under_way_max: usize,
    crowd: Crowd<Place<A::Welcome, S>>,
}

impl<A: Arrivals, S: FrameProtocol> Residents<A, S> {
    /// Creates empty slots for this many clients, with a limit of `under_way_max` concurrent connects.
    pub fn new(count: usize, under_way_max: usize, frame_protocol: S, arrivals: A) -> Result<Self> {
        let crowd = Crowd::of((0..count).map(|_| Place::Empty).collect())?;
        Ok(Self { arrivals, frame_protocol, under_way_max, crowd })
    }

    /// Connects this many clients, and returns when all of them are connected.
    ///
    /// # Errors
    /// If one is refused, times out, or receives a message; or if clients are already connected.
    pub fn fill(&mut self, count: usize) -> Result<Done> {
        ensure!(self.crowd.clients.iter().all(|place| matches!(place, Place::Empty)), "some are there already");
        let (mut done, mut came, mut inside) = (Done::default(), 0, 0);
        let mut progress = Instant::now();
        while inside < count {
            while came < count && came - inside < self.under_way_max {
                self.come(came)?;
                came += 1;
            }
            sleep(NAP);
            let entered = self.take(&mut done)?;
            inside += entered;
            if entered > 0 {
                progress = Instant::now();
            }
            ensure!(progress.elapsed() <= PROGRESS_TIMEOUT, "{} clients wait in vain", came - inside);
        }
        Ok(done)
    }

    /// Drops all connections without closing them gracefully.
    pub fn leave(&mut self) {
        self.crowd.clients.iter_mut().for_each(|place| *place = Place::Empty);
    }

    fn come(&mut self, place: usize) -> Result<()> {
        let visitor = Visitor::come(&mut self.arrivals, place, |socket| self.crowd.register(place, socket))?;
        *self.crowd.clients.get_mut(place).context("a place")? = Place::Coming(visitor);
        Ok(())
    }

    /// Reads available data and returns the number of newly connected clients.
    fn take(&mut self, done: &mut Done) -> Result<usize> {
        let (mut entered, frame_protocol) = (0, self.frame_protocol);
        self.crowd.each_ready(|place, scratch| {
            match place {
                Place::Empty => {}
                Place::In(client) => {
                    let unasked = |message: &[u8]| bail!("{:?} came unasked", String::from_utf8_lossy(message));
                    client.read(scratch, unasked)?;
                }
                Place::Coming(visitor) => {
                    if visitor.go_on(scratch)? {
                        done.note(1, visitor.since.elapsed());
                        entered += 1;
                        if let Place::Coming(visitor) = std::mem::replace(place, Place::Empty) {
                            *place = Place::In(Client::new(visitor.socket, frame_protocol, visitor.heard));
                        }
                    }
                }
            }
            Ok(())
        })?;
        Ok(entered)
    }
}

impl<A: Arrivals, S: FrameProtocol> Workload for Residents<A, S> {
    /// Fills all slots once, regardless of the length.
    fn run_for(&mut self, _length: Duration) -> Result<Done> {
        self.fill(self.crowd.clients.len())
    }

    /// Connects and disconnects as many clients as may connect concurrently: more would warm up paths that a storm
    /// finds cold.
    fn warm_up(&mut self, _length: Duration) -> Result<()> {
        self.fill(self.under_way_max.min(self.crowd.clients.len()))?;
        self.leave();
        Ok(())
    }

    fn inspect(&mut self) -> Result<()> {
        ensure!(self.take(&mut Done::default())? == 0, "somebody is still connecting");
        Ok(())
    }
}
