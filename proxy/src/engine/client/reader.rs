//! Reader of an open client connection, until its socket ends.
//!
//! ```text
//!  run: wait while paused ──► poll_step: read the socket ──► take: pieces ──► messages ──► UpwardPath
//!   └─ while several apps are busy, a client with more than a small read waits for a turn of its app
//! ```

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::HubProtocol;

use super::deflated_input::STEP_BYTES;
use super::gate::Gate;
use super::inbound::{Inbound, Piece};
use super::inbound_error::InboundError;
use super::raw_message::take_raw;
use super::upward_path::{Step, UpwardPath};
use crate::engine::shard::{CloseReason, Content, PauseReason, Role, Serial, Shard, ShardState, Slot};
use crate::engine::upstream::{HomeLink, Hub};
use crate::ground::bounded::Turn;
use crate::ground::limits::Quota;
use crate::ground::metrics::Limit;

/// Maximum size of a read outside of a turn while several apps are busy. Most messages are smaller.
const FREE_READ_MAX_BYTES: usize = 2 * 1024;

/// Bytes that count as a frame of a turn, about as many as a small message has.
const TURN_FRAME_BYTES: usize = 64;

/// Payload bytes per uncounted frame: frames beyond this ratio count as messages. The .NET client splits long messages
/// into frames of 4 KiB.
const FRAME_WORTH_BYTES: usize = 512;

/// Open connection, as held by its reading task.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) id: Rc<str>,
    pub(super) slot: Slot,
    pub(super) serial: Serial,
    pub(super) hub: Arc<Hub>,
    pub(super) home: HomeLink,
    pub(super) content: Content,
    pub(super) limit_bytes: usize,
    pub(super) inbound: Inbound,
    /// The connection is resumed: its early bytes are not decoded.
    pub(super) is_resumed: bool,
    pub(super) is_traced: bool,
    pub(super) quota: Option<Box<Quota>>,
    pub(super) secondaries: SecondaryReading,
    /// A message is incomplete, and the shard has recorded it.
    pub(super) is_unfinished: bool,
}

/// State of a reader for a client with several app servers.
#[derive(Debug, Default)]
pub(super) struct SecondaryReading {
    /// Messages were checked individually; this continues regardless of the rules.
    has_any: bool,
    /// Link of a secondary that was full after a send.
    full: Option<HomeLink>,
    /// The client has closed its transport after messages that are still waiting.
    is_closed_behind: bool,
}

impl SecondaryReading {
    /// For a client that has, or may get, secondary assignments.
    pub(super) fn new(has_any: bool) -> Self {
        Self { has_any, ..Self::default() }
    }

    fn is_full(&self) -> bool {
        self.full.as_ref().is_some_and(|link| link.is_full())
    }

    fn note_link(&mut self, upward: &mut UpwardPath<'_>) {
        if let Some(link) = upward.secondary.take() {
            self.has_any = true;
            self.full = Some(link).filter(|link| link.is_full());
        }
    }
}

impl Reader {
    /// Reads until the socket ends, then ends the connection, unless it can be resumed.
    ///
    /// Boxed, because a future stores moved values several times; so are the rare waits.
    pub(super) async fn run(mut self: Box<Self>, shard: &Rc<Shard>) {
        if self.is_paused(shard) {
            Box::pin(self.wait_while_paused(shard)).await;
        }
        let mut step = shard.step(|state| self.take_kept(state));
        let cause = loop {
            let mut takes_turn = matches!(step, Step::Yield | Step::Throttle(_)) && shard.shared().turns.are_taken();
            match step {
                Step::Continue => {}
                Step::Yield if takes_turn => {}
                // Otherwise a flood would be read for a whole task budget, megabytes, while the link's writer waits.
                Step::Yield => yield_now().await,
                Step::Throttle(owed) => Box::pin(self.throttle(shard, owed)).await,
                // Dropping a socket with unread data resets it and loses the last frames, so reading continues.
                Step::HubClose => self.close_client(shard, &CloseReason::by_client(Cause::ClientClosed)),
                Step::Broken(error) => {
                    self.close_broken(shard, &error);
                    if matches!(error, InboundError::Transport(_)) {
                        Box::pin(self.discard_rest(shard)).await;
                        break Cause::WebsocketProtocol;
                    }
                }
                Step::TransportClosed => break Cause::ClientClosed,
                Step::Ended(cause) => break cause,
            }
            if self.is_paused(shard) {
                Box::pin(self.wait_while_paused(shard)).await;
                // Many clients may have waited for the same link. A closed client waits for its socket.
                takes_turn = shard.shared().turns.are_taken() && !self.is_paused(shard);
            }
            step = match self.inbound.partial.release() {
                true => shard.step(|state| self.take_held(state)),
                false if takes_turn => Box::pin(self.read_in_turn(shard)).await,
                false => poll_fn(|cx| shard.step(|state| self.poll_step(state, cx, None))).await.0,
            };
        };
        if self.is_unfinished {
            shard.state().core.unfinished.forget(self.serial);
        }
        shard.free(self.slot, self.serial, cause);
    }

    pub(super) fn place(&self) -> (Slot, Serial) {
        (self.slot, self.serial)
    }

    fn close_broken(&mut self, shard: &Rc<Shard>, error: &InboundError) {
        if error.cause() == Cause::MessageTooLarge {
            shard.counters().limit(Limit::MessageSize).increment();
        }
        let reason = |detail: &str| CloseReason::broken_rule(error.cause(), detail, error.raw_code());
        let reason = match error {
            InboundError::TooLarge(limit) if self.hub.has_webhook() => {
                let (text, name) = (format!("The maximum message size of {limit}B was exceeded."), self.hub.name());
                let place = format!("message-max-bytes in [webhooks.{name}], and --message-max-bytes of proxies");
                reason(&format!("{text} The message size can be configured by {place}.")).shown(&text)
            }
            _ => reason(&error.to_string()),
        };
        self.close_client(shard, &reason);
    }

    /// Closes the connection and drops an incomplete message.
    fn close_client(&mut self, shard: &Rc<Shard>, reason: &CloseReason) {
        self.inbound.drop_messages();
        shard.step(|state| self.note_rest(state));
        shard.close_client(self.slot, reason);
    }

    /// Waits while this connection is paused, has no home or its home is full. The home may change meanwhile.
    async fn wait_while_paused(&mut self, shard: &Shard) {
        loop {
            if let Some(resumed) = self.resumed(shard) {
                resumed.notified().await;
            } else if let Some(link) = self.full_link() {
                let Some(closed) = self.pause(shard, PauseReason::FullLink) else { return };
                tokio::select! {
                    () = link.room() => {}
                    () = closed.notified() => {}
                }
                self.resume(shard, PauseReason::FullLink);
            } else {
                return;
            }
        }
    }

    /// Full link that the client's messages need.
    fn full_link(&self) -> Option<HomeLink> {
        let links = [Some(&self.home), self.secondaries.full.as_ref()];
        links.into_iter().flatten().find(|link| link.is_full()).cloned()
    }

    /// Records why the client is not being read, so that it does not time out. Returns the signal for an early end of
    /// the pause; `None` for a closing client, of which only the end is read.
    fn pause(&self, shard: &Shard, reason: PauseReason) -> Option<Rc<Notify>> {
        let mut state = shard.state();
        let client = state.core.connections.get_current(self.slot, self.serial).filter(|it| !it.life().is_closed())?;
        client.pauses_mut().add_reason(reason);
        client.pauses_mut().resumed()
    }

    fn resume(&self, shard: &Shard, reason: PauseReason) {
        let mut state = shard.state();
        let now = state.core.tick();
        if let Some(client) = state.core.connections.get_current(self.slot, self.serial) {
            client.resume(reason, now);
        }
    }

    fn is_paused(&mut self, shard: &Shard) -> bool {
        self.resumed(shard).is_some() || self.home.is_full() || self.secondaries.is_full()
    }

    /// Notification of the end of a pause, if paused; also updates the home.
    fn resumed(&mut self, shard: &Shard) -> Option<Rc<Notify>> {
        let mut state = shard.state();
        let now = state.core.tick();
        let client = state.core.connections.get_current(self.slot, self.serial)?;
        if !Arc::ptr_eq(client.home(), &self.home) {
            self.home = Arc::clone(client.home());
        }
        // The shard has not yet been notified of the lost link.
        if self.home.is_closed() && !client.life().is_closed() && !client.is_unassigned() {
            client.change_assignment(&Role::Home, now, |home| {
                home.leave(self.home.app);
                home.wait(now);
            });
        }
        client.pauses_mut().resumed()
    }

    /// Stops reading for `owed`; then the client is within its rate again.
    async fn throttle(&self, shard: &Shard, owed: Duration) {
        if let Some(closed) = self.pause(shard, PauseReason::Throttled) {
            // The debt is paid, or the client is closing.
            drop(timeout(owed, closed.notified()).await);
            self.resume(shard, PauseReason::Throttled);
        }
    }

    fn is_closing(&self, state: &mut ShardState) -> bool {
        state.core.connections.get_current(self.slot, self.serial).is_none_or(|client| client.life().is_closed())
    }

    /// Whether the task only waits for the socket to end.
    fn is_ending(&self, state: &mut ShardState) -> bool {
        let client = state.core.connections.get_current(self.slot, self.serial);
        client.is_none_or(|client| client.life().is_closed() || client.pauses().is_cut())
    }

    /// Reads available data in a turn of the app's clients.
    async fn read_in_turn(&mut self, shard: &Rc<Shard>) -> Step {
        let line = shard.state().core.client_line(&self.hub).clone();
        let Some(mut turn) = self.wait_for_turn(shard, line.begin()).await else {
            yield_now().await;
            return Step::Continue;
        };
        let (begun_at, limit_bytes) = (Instant::now(), turn.frames_max() * TURN_FRAME_BYTES);
        let mut read = |cx: &mut Context<'_>| shard.step(|state| self.poll_step(state, cx, Some(limit_bytes)));
        // Without data, the next read waits for the socket.
        let (step, count) = match poll_fn(|cx| Poll::Ready(read(cx))).await {
            Poll::Ready(read) => read,
            Poll::Pending => (Step::Continue, 0),
        };
        if turn.share(count.div_ceil(TURN_FRAME_BYTES), begun_at.elapsed()) {
            // Lets the shard serve others before the app's next turn.
            yield_now().await;
        }
        step
    }

    /// Waits for a turn, as a pause; `None` without turns, and for a client that is being closed.
    async fn wait_for_turn(&self, shard: &Shard, turn: impl Future<Output = Option<Turn>>) -> Option<Turn> {
        let mut turn = pin!(turn);
        if let Some(turn) = turn.as_mut().now_or_never() {
            return turn;
        }
        let Some(closed) = self.pause(shard, PauseReason::Turn) else { return turn.await };
        let turn = tokio::select! {
            turn = turn => turn,
            () = closed.notified() => None,
        };
        self.resume(shard, PauseReason::Turn);
        turn
    }

    /// Reads the socket, in a turn at most this much. Returns the next step and the number of bytes read.
    fn poll_step(
        &mut self,
        state: &mut ShardState,
        cx: &mut Context<'_>,
        turn_bytes: Option<usize>,
    ) -> Poll<(Step, usize)> {
        // The link may have filled while the client was idle; many clients starting together would far exceed the
        // limit.
        if self.home.is_full() && !self.is_ending(state) {
            return Poll::Ready((Step::Continue, 0));
        }
        if self.inbound.is_behind() {
            let mut rest = self.inbound.take_behind();
            let step = self.take_bytes(state, &mut rest);
            self.note_rest(state);
            return Poll::Ready((step, STEP_BYTES));
        }
        let mut buffer = state.core.lend_read_buffer();
        let are_busy = state.core.context.shared.turns.are_taken();
        let limit_bytes = turn_bytes.unwrap_or(if are_busy { FREE_READ_MAX_BYTES } else { usize::MAX });
        let limit_bytes = limit_bytes.min(buffer.len());
        let read = self.poll_read(state, cx, buffer.get_mut(..limit_bytes).unwrap_or_default());
        let step = read.map(|read| match read {
            None => (Step::Continue, 0),
            Some(Ok(0)) => (Step::Ended(Cause::SocketEnded), 0),
            Some(Ok(count)) => match self.take_bytes(state, buffer.get_mut(..count).unwrap_or_default()) {
                // There may be more.
                Step::Continue if count == limit_bytes => (Step::Yield, count),
                step => (step, count),
            },
            Some(Err(error)) => (Step::Ended(cause_of(&error)), 0),
        });
        state.core.return_read_buffer(buffer);
        if matches!(step, Poll::Ready((_, FREE_READ_MAX_BYTES..))) {
            state.core.client_line(&self.hub).note_work();
        }
        self.note_rest(state);
        step
    }

    /// Records an incomplete message after this read. Usually no message is incomplete.
    fn note_rest(&mut self, state: &mut ShardState) {
        let rest = self.inbound.rest();
        if rest.bytes == 0 && !self.is_unfinished {
            return;
        }
        self.is_unfinished = rest.bytes > 0;
        let now = state.core.tick();
        state.core.unfinished.note_rest((self.slot, self.serial), rest, now);
        state.keep_unfinished_budget();
    }

    /// Reads the socket; `None` if the connection was paused or reassigned in the meantime.
    ///
    /// The socket is stored in the shard's state, next to the fields used by deliveries, to save a cache miss.
    fn poll_read(
        &self,
        state: &mut ShardState,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Option<io::Result<usize>>> {
        let Some(client) = state.core.connections.get_current(self.slot, self.serial) else {
            return Poll::Ready(Some(Ok(0)));
        };
        if client.pauses().is_cut() {
            return Poll::Ready(Some(Ok(0)));
        }
        if !client.pauses().is_empty() || !Arc::ptr_eq(client.home(), &self.home) {
            return Poll::Ready(None);
        }
        let limit = self.quota.as_ref().map_or(buffer.len(), |quota| quota.read_max_bytes().min(buffer.len()));
        let read = ready!(client.wire().socket().poll_read(cx, buffer.get_mut(..limit).unwrap_or_default()));
        Poll::Ready(Some(read))
    }

    fn take_bytes(&mut self, state: &mut ShardState, bytes: &mut [u8]) -> Step {
        if self.is_closing(state) {
            return self.take_last(bytes);
        }
        // Hub messages and parts of them show that a hub's client is alive; transport frames don't.
        let mut is_alive = self.content == Content::Raw;
        let mut inflater = state.core.inflater.take();
        let gate = Gate::new(&self.hub, self.secondaries.has_any, self.is_traced);
        let mut upward = UpwardPath::new(state, (&self.home, &self.id, self.slot), gate);
        let (mut pieces, partial) = self.inbound.pieces(bytes, (&mut inflater, self.limit_bytes));
        let mut problem = Ok(());
        let taken = loop {
            match pieces.next() {
                Err(error @ InboundError::Transport(_)) => break Err(error),
                Err(error) => {
                    pieces.discard();
                    problem = problem.and(Err(error));
                }
                Ok(None) => break problem,
                Ok(Some(Piece::Payload(payload, place))) => {
                    is_alive |= !payload.is_empty();
                    // After an invalid message, only transport frames are handled.
                    if problem.is_err() || partial.hold_too(payload) {
                        continue;
                    }
                    problem = match self.content {
                        Content::Hub(protocol) => upward.take_messages(partial, payload, protocol, self.limit_bytes),
                        Content::Raw => take_raw(partial, payload, place, self.limit_bytes)
                            .map(|message| message.into_iter().for_each(|message| upward.take_message(message))),
                    };
                }
                Ok(Some(Piece::Ping(payload))) => upward.answer_ping(&payload),
                Ok(Some(Piece::Close)) if partial.hold_too(&[]) => self.secondaries.is_closed_behind = true,
                Ok(Some(Piece::Close)) => upward.step = Step::TransportClosed,
            }
        };
        if is_alive || pieces.deflated.is_some() {
            upward.note_life(partial.has_begun() || pieces.deflated.is_some());
        }
        if pieces.has_inflated() {
            partial.note_end();
        }
        self.secondaries.note_link(&mut upward);
        let count = pieces.length();
        let messages = upward.messages.max(pieces.frames().saturating_sub((count / FRAME_WORTH_BYTES) as u64));
        let step = upward.finish(taken);
        state.core.inflater = inflater;
        match step {
            Step::Continue => match self.pay(state, messages, count) {
                Step::Continue if self.inbound.is_behind() => Step::Yield,
                step => step,
            },
            step => step,
        }
    }

    /// Handles payload that came with the handshake, or with the connect request of a raw endpoint.
    fn take_kept(&mut self, state: &mut ShardState) -> Step {
        let step = match self.content {
            Content::Hub(protocol) if !self.is_resumed => {
                let count = self.inbound.partial.bytes_mut().len();
                self.take_partial(state, protocol, count)
            }
            Content::Hub(_) | Content::Raw => {
                let mut early = self.inbound.take_kept();
                if early.is_empty() { Step::Continue } else { self.take_bytes(state, &mut early) }
            }
        };
        self.note_rest(state);
        step
    }

    /// Handles messages that waited for an app server.
    fn take_held(&mut self, state: &mut ShardState) -> Step {
        let step = match self.content {
            // Their bytes were charged when they were read.
            Content::Hub(protocol) if !self.is_closing(state) => self.take_partial(state, protocol, 0),
            Content::Hub(_) | Content::Raw => Step::Continue,
        };
        self.note_rest(state);
        match step {
            Step::Continue if self.secondaries.is_closed_behind && !self.inbound.partial.is_held() => {
                Step::TransportClosed
            }
            step => step,
        }
    }

    /// Handles complete messages among the stored bytes.
    fn take_partial(&mut self, state: &mut ShardState, protocol: HubProtocol, bytes: usize) -> Step {
        let gate = Gate::new(&self.hub, self.secondaries.has_any, self.is_traced);
        let mut upward = UpwardPath::new(state, (&self.home, &self.id, self.slot), gate);
        let taken = upward.take_messages(&mut self.inbound.partial, &[], protocol, self.limit_bytes);
        self.secondaries.note_link(&mut upward);
        let messages = upward.messages;
        match upward.finish(taken) {
            Step::Continue => self.pay(state, messages, bytes),
            step => step,
        }
    }

    /// Next step after a read of this size.
    fn pay(&mut self, state: &ShardState, messages: u64, bytes: usize) -> Step {
        let owed = self.quota.as_mut().map(|quota| quota.charge(state.core.context.shared.uptime(), messages, bytes));
        match owed.map(|debt| (debt, debt.messages.max(debt.bytes))) {
            Some((debt, owed)) if !owed.is_zero() => {
                let limit = if debt.messages >= debt.bytes { Limit::Messages } else { Limit::Bytes };
                state.core.context.counters.limit(limit).increment();
                Step::Throttle(owed)
            }
            _ => Step::after(bytes),
        }
    }

    /// Handles the data of a closing client: only the end of its transport matters.
    fn take_last(&mut self, bytes: &mut [u8]) -> Step {
        self.inbound.drop_messages();
        let step = Step::after(bytes.len());
        let (mut pieces, mut step) = (self.inbound.frames(bytes), step);
        loop {
            match pieces.next() {
                Err(_) => return Step::Ended(Cause::WebsocketProtocol),
                Ok(None) => return step,
                Ok(Some(Piece::Close)) => step = Step::TransportClosed,
                Ok(Some(_)) => {}
            }
        }
    }

    /// Reads and discards until the client has closed or the close times out.
    async fn discard_rest(&self, shard: &Shard) {
        while let Ok(1..) = poll_fn(|cx| self.poll_discard(shard, cx)).await {
            yield_now().await;
        }
    }

    fn poll_discard(&self, shard: &Shard, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = shard.state();
        let mut buffer = state.core.lend_read_buffer();
        let read = match state.core.connections.get_current(self.slot, self.serial) {
            Some(client) => client.wire().socket().poll_read(cx, &mut buffer),
            None => Poll::Ready(Ok(0)),
        };
        state.core.return_read_buffer(buffer);
        read
    }
}

pub(super) fn cause_of(error: &io::Error) -> Cause {
    match (error.get_ref().and_then(|inner| inner.downcast_ref()), error.kind()) {
        (Some(cause), _) => *cause,
        // TLS ended without a close, which some peers do on exit.
        (None, io::ErrorKind::UnexpectedEof) => Cause::SocketEnded,
        // rustls reports non-TLS data and decryption failures this way.
        (None, io::ErrorKind::InvalidData) => Cause::TlsFailed,
        (None, _) => Cause::SocketReset,
    }
}
