//! Publisher of the floor's and the proxy's broadcasts.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trunkline_generator::carrier::Carrier;
use trunkline_generator::crowd::NAP;
use trunkline_generator::frame;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::receivers::{Burst, Publisher, Receivers};

use super::connect::{HUB, to_floor, to_proxy};
use super::left_out::LeftOut;
use crate::arguments::{At, CrowdArguments};
use crate::broadcast::To;
use crate::server::Server;
use crate::transport::Transport;
use crate::{broadcast, writer};

/// Time limit for a server to read a burst request.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests bursts, and computes the expected messages.
pub(super) struct BurstPublisher {
    at: At,
    to: To,
    clients: usize,
    payload: usize,
    burst: u64,
    interval: Duration,
    /// The floor's first connection, or another handle of the first client's socket.
    asking: TcpStream,
    left_out: Option<LeftOut>,
}

/// Connects all clients and the publisher.
pub(super) fn receivers(server: &Server, arguments: &CrowdArguments) -> Result<Receivers<Hub, BurstPublisher>> {
    let CrowdArguments { at, payload, burst, rate, to, speech, clients, transport, .. } = *arguments;
    let asking = Cell::new(match at {
        At::Floor => Some(to_floor(server.address())?),
        At::Proxy => None,
    });
    let mut addresses = server.addresses();
    let connect = |number| {
        let address = addresses.next().context("no server")?;
        if at == At::Floor {
            return Ok((to_floor(address)?, Hub::Json, Carrier::from(Vec::new())));
        }
        // The first client sends the requests.
        if number > 0 && transport != Transport::WebSockets {
            let (socket, carrier) = transport.connect(address, HUB)?;
            return Ok((socket, Hub::Json, carrier));
        }
        let (socket, hub, early) = to_proxy(address, speech.hub(number), &to.groups(number, clients))?;
        let handle = asking.take().map_or_else(|| socket.try_clone(), Ok)?;
        asking.set(Some(handle));
        Ok((socket, hub, early.into()))
    };
    let publisher = || {
        Ok(BurstPublisher {
            at,
            to,
            clients,
            payload,
            burst,
            interval: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate),
            asking: asking.take().context("there are no clients")?,
            left_out: match (at, to) {
                (At::Proxy, To::Except) => Some(LeftOut::gather(server.address())?),
                _ => None,
            },
        })
    };
    Receivers::gather(clients, connect, publisher)
}

/// Writes all bytes: large messages exceed the socket buffers, and the socket is nonblocking.
fn write_whole(socket: &mut TcpStream, mut bytes: &[u8]) -> Result<()> {
    let started = Instant::now();
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(NAP),
            Err(error) => return Err(error).context("the server takes no more"),
        }
        ensure!(started.elapsed() < ASK_TIMEOUT, "the server takes no more");
    }
    Ok(())
}

impl Publisher for BurstPublisher {
    fn burst(&mut self, first: u64) -> Burst {
        let Self { at, to, clients, payload, .. } = *self;
        let numbers = first..first + self.burst;
        let asking = match at {
            At::Floor => {
                let frames = numbers.clone().map(|number| frame::from_server(&broadcast::message(number, payload)));
                writer::command(&frames.collect::<Vec<_>>().concat())
            }
            At::Proxy => {
                let left_out = self.left_out.as_ref().map_or(&[][..], LeftOut::ids);
                let call = |number| frame::from_client(&to.call(number, payload, clients, left_out));
                numbers.clone().flat_map(call).collect()
            }
        };
        Burst {
            asking,
            messages: numbers.clone().map(|number| broadcast::message(number, payload)).collect(),
            binary_messages: numbers.map(|number| broadcast::binary_message(number, payload)).collect(),
        }
    }

    fn ask(&mut self, asking: &[u8]) -> Result<Instant> {
        write_whole(&mut self.asking, asking)?;
        Ok(Instant::now())
    }

    fn inspect(&mut self) -> Result<()> {
        self.left_out.as_mut().map_or(Ok(()), LeftOut::inspect)
    }

    fn interval(&self) -> Duration {
        self.interval
    }
}
