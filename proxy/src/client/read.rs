//! Read an open client connection until its socket ends.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use tracing::debug;
use trunkline_protocol::hub::HubProtocol;

use super::inbound::{Inbound, InboundError, Upward};
use crate::directory::{Serial, Slot};
use crate::link::Home;
use crate::shard::{Ending, Shard};
use crate::socket::Socket;
use crate::transport::websocket;

/// An open connection, as the task that reads it holds it.
pub(super) struct Reading {
    pub(super) slot: Slot,
    pub(super) serial: Serial,
    pub(super) socket: Rc<Socket>,
    pub(super) home: Home,
    pub(super) protocol: HubProtocol,
    pub(super) limit_bytes: usize,
    pub(super) inbound: Inbound,
}

/// What a read came to.
enum Step {
    /// There may be more.
    Go,
    /// The client has left; its socket may take a while to end.
    Left,
    /// It broke a rule.
    Broken(InboundError),
    /// The socket has ended.
    Ended,
}

/// Reads until the socket ends, then frees the connection's place.
pub(super) async fn until_the_end(shard: &Rc<Shard>, mut reading: Reading) {
    let mut step = reading.take_kept(shard);
    loop {
        match step {
            Step::Go => {}
            Step::Left => {
                shard.end(reading.slot, &Ending::by_client());
                break;
            }
            Step::Broken(error) => {
                debug!(id = %reading.id(shard), %error, "closing a client that breaks a rule");
                shard.end(reading.slot, &Ending::broken_rule(&error.to_string()));
                reading.drain(shard).await;
                break;
            }
            Step::Ended => break,
        }
        reading.wait_for_leave(shard).await;
        step = poll_fn(|cx| {
            shard.with_scratch(|scratch| {
                reading.socket.clone().poll_read(cx, scratch).map(|read| reading.take(shard, scratch, read))
            })
        })
        .await;
    }
    shard.free(reading.slot);
}

impl Reading {
    fn id(&self, shard: &Shard) -> String {
        shard.with_client(self.slot, self.serial, |client| client.id.to_string()).unwrap_or_default()
    }

    /// Waits while this connection shall not be read: its app server paused it, or its link is full.
    async fn wait_for_leave(&self, shard: &Shard) {
        while let Some(pause) = shard.with_client(self.slot, self.serial, |client| client.pause.clone()).flatten() {
            pause.notified().await;
        }
        if self.home.is_full() {
            self.home.room().await;
        }
    }

    fn take(&mut self, shard: &Rc<Shard>, scratch: &mut [u8], read: io::Result<usize>) -> Step {
        let Ok(count @ 1..) = read else { return Step::Ended };
        let bytes = scratch.get_mut(..count).unwrap_or_default();
        let Self { slot, serial, home, protocol, limit_bytes, inbound, .. } = self;
        let mut upward = Taking::new(shard, home, *slot, *serial);
        let taken = inbound.take(bytes, *protocol, *limit_bytes, |what| upward.give(what));
        upward.finish(taken)
    }

    fn take_kept(&mut self, shard: &Rc<Shard>) -> Step {
        let Self { slot, serial, home, protocol, limit_bytes, inbound, .. } = self;
        let mut upward = Taking::new(shard, home, *slot, *serial);
        let taken = inbound.take_kept(*protocol, *limit_bytes, |what| upward.give(what));
        upward.finish(taken)
    }

    /// Reads and forgets, until the client has closed or the keep-alive wheel cuts the socket.
    async fn drain(&self, shard: &Shard) {
        let read = || poll_fn(|cx| shard.with_scratch(|scratch| self.socket.poll_read(cx, scratch)));
        while let Ok(1..) = read().await {}
    }
}

/// What is done with one read's worth of a client's bytes.
struct Taking<'a> {
    shard: &'a Rc<Shard>,
    home: &'a Home,
    slot: Slot,
    id: Option<Box<str>>,
    has_left: bool,
}

impl<'a> Taking<'a> {
    /// The client was heard; if it is closing already, nothing of what it says counts.
    fn new(shard: &'a Rc<Shard>, home: &'a Home, slot: Slot, serial: Serial) -> Self {
        let now = shard.tick();
        let id = shard.with_client(slot, serial, |client| {
            client.last_heard = now;
            (!client.is_closing()).then(|| client.id.clone())
        });
        Self { shard, home, slot, id: id.flatten(), has_left: false }
    }

    fn give(&mut self, upward: Upward<'_>) {
        if self.has_left {
            return;
        }
        match (upward, &self.id) {
            (Upward::TransportClose, _) | (Upward::Close, Some(_)) => self.has_left = true,
            (_, None) => {}
            (Upward::Messages { bytes, count }, Some(id)) => {
                self.shard.counters().messages_up.add(count);
                self.home.send_data(id, bytes, 0);
            }
            (Upward::Ping, Some(_)) => self.shard.pinged(self.slot),
            (Upward::TransportPing(payload), Some(_)) => self.shard.send_frame(self.slot, &websocket::pong(&payload)),
        }
    }

    fn finish(self, taken: Result<(), InboundError>) -> Step {
        match taken {
            _ if self.has_left => Step::Left,
            Ok(()) => Step::Go,
            // What a closing client says does not count, be it ever so wrong.
            Err(_) if self.id.is_none() => Step::Ended,
            Err(error) => Step::Broken(error),
        }
    }
}
