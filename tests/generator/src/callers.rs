//! Clients that call a method, each again as soon as it is answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Client, Opened};
use crate::crowd::Crowd;
use crate::done::Done;
use crate::frame_protocol::FrameProtocol;
use crate::workload::{Repeat, Then, Workload, repeat_for};

/// Call with its expected answer.
#[derive(Debug, Clone)]
pub struct Call {
    /// Bytes of the call.
    pub asked: Vec<u8>,
    /// Message expected as the answer.
    pub answered: Vec<u8>,
}

/// Crowd of calling clients.
#[derive(Debug)]
pub struct Callers<S> {
    crowd: Crowd<Caller<S>>,
    call: Call,
}

#[derive(Debug)]
struct Caller<S> {
    client: Client<S>,
    /// Time of its pending call, if any.
    since: Option<Instant>,
}

impl<S: FrameProtocol> Callers<S> {
    /// Connects the clients; see [`Client::gather`].
    pub fn gather<T: Into<Opened>>(
        count: usize,
        call: Call,
        connect: impl FnMut(usize) -> Result<(std::net::TcpStream, S, T)>,
    ) -> Result<Self> {
        Ok(Self { crowd: Client::gather(count, connect, |client| Caller { client, since: None })?, call })
    }
}

impl<S: FrameProtocol> Repeat for Callers<S> {
    fn begin(&mut self) -> Result<usize> {
        self.crowd.clients.iter_mut().try_for_each(|caller| caller.call(&self.call))?;
        Ok(self.crowd.clients.len())
    }

    fn take(&mut self, done: &mut Done, then: Then) -> Result<usize> {
        let (mut ended, call) = (0, &self.call);
        self.crowd.each_ready(|caller, scratch| {
            let Some(since) = caller.read(scratch, call)? else { return Ok(()) };
            done.note(1, since.elapsed());
            ended += 1;
            if then == Then::Again { caller.call(call) } else { Ok(()) }
        })?;
        Ok(ended)
    }
}

impl<S: FrameProtocol> Workload for Callers<S> {
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        repeat_for(self, length)
    }

    fn inspect(&mut self) -> Result<()> {
        ensure!(self.take(&mut Done::default(), Then::Stop)? == 0, "a call was answered twice");
        Ok(())
    }
}

impl<S: FrameProtocol> Caller<S> {
    fn call(&mut self, call: &Call) -> Result<()> {
        self.since = Some(Instant::now());
        self.client.send(&call.asked)
    }

    /// Reads available data. Returns the send time of an answered call.
    fn read(&mut self, scratch: &mut [u8], call: &Call) -> Result<Option<Instant>> {
        let (mut answered, Self { client, since }) = (None, self);
        client.read(scratch, |message| {
            ensure!(message == call.answered, "{:?} is not the answer that is due", String::from_utf8_lossy(message));
            answered = Some(since.take().context("no call was under way")?);
            Ok(())
        })?;
        Ok(answered)
    }
}
