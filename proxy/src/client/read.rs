//! Read an open client connection until its socket ends.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;
use trunkline_protocol::cause::Cause;

use super::inbound::{Inbound, InboundError, Piece, Upward};
use crate::limits::Quota;
use crate::metrics::Limit;
use crate::shard::directory::{Content, Hold, Serial, Slot};
use crate::shard::{Ending, Shard};
use crate::transport::websocket;
use crate::upstream::HomeLink;

/// A read of this size is part of a flood.
const LARGE_READ_BYTES: usize = 16 * 1024;

/// While a client is not read for what it owes, its keep-alive is looked after this often.
const NAP: Duration = Duration::from_secs(1);

/// An open connection, as the task that reads it holds it.
pub(super) struct Reading {
    pub(super) id: Rc<str>,
    pub(super) slot: Slot,
    pub(super) serial: Serial,
    pub(super) home: HomeLink,
    pub(super) content: Content,
    pub(super) limit_bytes: usize,
    pub(super) inbound: Inbound,
    /// What it may send in a second, where that is limited.
    pub(super) quota: Option<Box<Quota>>,
}

/// What a read came to.
enum Step {
    /// There may be more.
    Go,
    /// It has sent more than it may in that time, and is read no further for so long.
    Rest(Duration),
    /// There is more, and others have waited for this one.
    MakeWay,
    /// The client says that it leaves; the end of its transport follows.
    Leaving,
    /// It closed its transport, or answered our close: nothing follows.
    TransportClosed,
    /// It broke a rule of the hub protocol or of its transport, or one of our limits.
    Broken(InboundError),
    /// The socket has ended, for this cause, or nothing more can be made of what it brings.
    Ended(Cause),
}

/// Reads until the socket ends, then frees the connection's place.
///
/// What it holds is boxed: a future keeps what is moved into it several times over. The rare waits are boxed, too.
pub(super) async fn until_the_end(shard: &Rc<Shard>, mut reading: Box<Reading>) {
    if reading.is_held(shard) {
        Box::pin(reading.wait_for_leave(shard)).await;
    }
    let mut step = reading.take_kept(shard);
    let cause = loop {
        match step {
            Step::Go => {}
            // A flood would else be read for as long as the runtime lets one task go on: megabytes, while its link's
            // writer, and the frame that pauses it, wait.
            Step::MakeWay => yield_now().await,
            Step::Rest(owed) => Box::pin(reading.rest(shard, owed)).await,
            // A socket that is dropped with bytes unread resets, and our last words with it: so read on.
            Step::Leaving => shard.end(reading.slot, &Ending::by_client(Cause::ClientClosed)),
            Step::Broken(error) => {
                if error.cause() == Cause::MessageTooLarge {
                    shard.counters().limit(Limit::MessageSize).increment();
                }
                shard.end(reading.slot, &Ending::broken_rule(error.cause(), &error.to_string(), error.raw_code()));
                if matches!(error, InboundError::Transport(_)) {
                    Box::pin(reading.drain(shard)).await;
                    break Cause::WebsocketProtocol;
                }
            }
            Step::TransportClosed => break Cause::ClientClosed,
            Step::Ended(cause) => break cause,
        }
        if reading.is_held(shard) {
            Box::pin(reading.wait_for_leave(shard)).await;
        }
        step = poll_fn(|cx| {
            // Its link may have filled while it was idle: many that begin at once would go far over the bound.
            if reading.home.is_full() {
                return Poll::Ready(Step::Go);
            }
            shard.with_scratch(|scratch| {
                let most = reading.read_max_bytes(scratch.len());
                let scratch = scratch.get_mut(..most).unwrap_or_default();
                let Some(reading_now) = reading.poll_unless_held(shard, cx, scratch) else {
                    return Poll::Ready(Step::Go);
                };
                let read = ready!(reading_now);
                Poll::Ready(reading.take(shard, scratch, read))
            })
        })
        .await;
    };
    shard.free(reading.slot, cause);
}

impl Reading {
    /// Waits while this connection shall not be read: it is paused, has no home, or its home is full. It may have
    /// another home then.
    async fn wait_for_leave(&mut self, shard: &Shard) {
        loop {
            match self.gate(shard) {
                Some(gate) => gate.notified().await,
                None if self.home.is_full() => self.home.room().await,
                None => return,
            }
        }
    }

    /// Whether there is something to wait for.
    fn is_held(&mut self, shard: &Shard) -> bool {
        self.gate(shard).is_some() || self.home.is_full()
    }

    /// Who tells that this connection may be read again, if it is held; and what its home is now.
    fn gate(&mut self, shard: &Shard) -> Option<Rc<Notify>> {
        let home = &mut self.home;
        let gate = shard.with_client(self.slot, self.serial, |client| {
            if !Arc::ptr_eq(&client.home, home) {
                *home = Arc::clone(&client.home);
            }
            // Its shard has not heard of it yet, but will.
            if home.is_closed() && !client.is_closing() {
                client.hold(Hold::Homeless);
            }
            client.gate()
        });
        gate.flatten()
    }

    /// Does not read it for as long as it owes. While we don't read it, its silence is ours.
    async fn rest(&self, shard: &Shard, mut owed: Duration) {
        while !owed.is_zero() {
            let nap = owed.min(NAP);
            owed -= nap;
            sleep(nap).await;
            let now = shard.tick();
            let is_over = shard.with_client(self.slot, self.serial, |client| {
                client.last_heard = now;
                client.is_closing()
            });
            if is_over.unwrap_or(true) {
                return;
            }
        }
    }

    fn read_max_bytes(&self, room: usize) -> usize {
        self.quota.as_ref().map_or(room, |quota| quota.read_max_bytes().min(room))
    }

    /// Reads, unless it has become forbidden since the reader looked.
    fn poll_unless_held(
        &self,
        shard: &Shard,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Option<Poll<io::Result<usize>>> {
        let read = shard.with_client(self.slot, self.serial, |client| {
            let may_read = client.holds().are_none() && Arc::ptr_eq(&client.home, &self.home);
            may_read.then(|| client.socket.poll_read(cx, buffer))
        });
        read.unwrap_or(Some(Poll::Ready(Ok(0))))
    }

    /// The socket lies in the directory, beside what deliveries look at: one place less to fetch for each of them.
    fn poll_read(&self, shard: &Shard, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        shard
            .with_client(self.slot, self.serial, |client| client.socket.poll_read(cx, buffer))
            .unwrap_or(Poll::Ready(Ok(0)))
    }

    fn take(&mut self, shard: &Rc<Shard>, scratch: &mut [u8], read: io::Result<usize>) -> Step {
        let count = match read {
            Ok(0) => return Step::Ended(Cause::SocketEnded),
            Ok(count) => count,
            Err(error) => return Step::Ended(cause_of(&error)),
        };
        let bytes = scratch.get_mut(..count).unwrap_or_default();
        let now = shard.tick();
        let is_closing = shard.with_client(self.slot, self.serial, |client| {
            client.last_heard = now;
            client.is_closing()
        });
        if is_closing.unwrap_or(true) {
            return self.take_last(bytes);
        }
        let mut upward = Taking { shard, home: &self.home, id: &self.id, slot: self.slot, messages: 0, step: Step::Go };
        let taken = match self.content {
            Content::Hub(protocol) => self.inbound.take(bytes, protocol, self.limit_bytes, |what| upward.give(what)),
            Content::Raw => self.inbound.take_raw(bytes, self.limit_bytes, |what| upward.give(what)),
        };
        let messages = upward.messages;
        match upward.finish(taken) {
            Step::Go => self.pay(shard, messages, count),
            step => step,
        }
    }

    /// What is next after a read of so much.
    fn pay(&mut self, shard: &Shard, messages: u64, bytes: usize) -> Step {
        let owed = self.quota.as_mut().map(|quota| quota.charge(shard.shared().uptime(), messages, bytes));
        match owed.map(|debt| (debt, debt.messages.max(debt.bytes))) {
            Some((debt, owed)) if !owed.is_zero() => {
                let limit = if debt.messages >= debt.bytes { Limit::Messages } else { Limit::Bytes };
                shard.counters().limit(limit).increment();
                Step::Rest(owed)
            }
            _ if bytes >= LARGE_READ_BYTES => Step::MakeWay,
            _ => Step::Go,
        }
    }

    fn take_kept(&mut self, shard: &Rc<Shard>) -> Step {
        let Content::Hub(protocol) = self.content else {
            let mut early = self.inbound.kept();
            let count = early.len();
            return if count == 0 { Step::Go } else { self.take(shard, &mut early, Ok(count)) };
        };
        let mut upward = Taking { shard, home: &self.home, id: &self.id, slot: self.slot, messages: 0, step: Step::Go };
        let taken = self.inbound.take_kept(protocol, self.limit_bytes, |what| upward.give(what));
        upward.finish(taken)
    }

    /// Of a closing client only the end of its transport counts.
    fn take_last(&mut self, bytes: &mut [u8]) -> Step {
        let mut step = Step::Go;
        let taken = self.inbound.take_transport(bytes, |piece| {
            if matches!(piece, Piece::Close) {
                step = Step::TransportClosed;
            }
        });
        if taken.is_ok() { step } else { Step::Ended(Cause::WebsocketProtocol) }
    }

    /// Reads and forgets, until the client has closed or the keep-alive wheel cuts the socket.
    async fn drain(&self, shard: &Shard) {
        let read = || poll_fn(|cx| shard.with_scratch(|scratch| self.poll_read(shard, cx, scratch)));
        while let Ok(1..) = read().await {}
    }
}

/// Why a socket has ended that failed.
pub(super) fn cause_of(error: &io::Error) -> Cause {
    match (error.get_ref().and_then(|inner| inner.downcast_ref()), error.kind()) {
        (Some(cause), _) => *cause,
        // TLS was cut off, which its peer does that just ends.
        (None, io::ErrorKind::UnexpectedEof) => Cause::SocketEnded,
        // So rustls calls what is no TLS, and what it can't decrypt.
        (None, io::ErrorKind::InvalidData) => Cause::TlsFailed,
        (None, _) => Cause::SocketReset,
    }
}

/// What is done with one read's worth of a client's bytes.
struct Taking<'a> {
    shard: &'a Rc<Shard>,
    home: &'a HomeLink,
    id: &'a str,
    slot: Slot,
    /// How many messages there were, pings included.
    messages: u64,
    step: Step,
}

impl Taking<'_> {
    fn give(&mut self, upward: Upward<'_>) {
        match upward {
            Upward::TransportClose => self.step = Step::TransportClosed,
            // What follows the client's own farewell does not count.
            _ if !matches!(self.step, Step::Go) => {}
            Upward::Close => self.step = Step::Leaving,
            Upward::Messages { bytes, count } => {
                self.messages += count;
                self.count(count, bytes);
                self.shard.note_up(self.slot, bytes);
                self.home.send_data(self.id, bytes, 0);
            }
            Upward::Call { id } => self.shard.called(self.slot, id),
            Upward::Raw { bytes, kind } => {
                self.messages += 1;
                self.count(1, bytes);
                self.shard.note_up(self.slot, bytes);
                self.home.send_data(self.id, bytes, kind.data_type());
            }
            Upward::Ping => {
                self.messages += 1;
                self.shard.pinged(self.slot);
            }
            Upward::TransportPing(payload) => {
                self.messages += 1;
                self.shard.send_frame(self.slot, &websocket::pong(&payload));
            }
        }
    }

    fn count(&self, messages: u64, bytes: &[u8]) {
        let counters = self.shard.counters().hub(self.home.hub().get());
        counters.messages_up.add_alone(messages);
        counters.bytes_up.add_alone(bytes.len() as u64);
    }

    fn finish(self, taken: Result<(), InboundError>) -> Step {
        match (self.step, taken) {
            (Step::Go, Err(error)) => Step::Broken(error),
            (step, _) => step,
        }
    }
}
