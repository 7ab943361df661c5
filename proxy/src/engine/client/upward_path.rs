//! Way of one read's messages up: to the home link, a secondary, or the shard itself.
//!
//! ```text
//!  HubMessages ─┬─ gate open: runs of messages ─────────────────────────┬─► taps ─► home link
//!               └─ one by one ─► Gate ─ admitted ─► joined runs, by link ┘
//! ```

use std::mem;
use std::ops::Range;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{HubProtocol, ReceivedSequence};
use trunkline_protocol::service::DataType;

use super::gate::{Gate, GateDecision};
use super::inbound::{HubMessages, PartialMessage, Upward};
use super::inbound_error::InboundError;
use crate::engine::shard::moving::reconnect::{acknowledged, end_hold, owe_acknowledgement};
use crate::engine::shard::{Content, Resumption, ShardState, Slot, UpwardMessages};
use crate::engine::transport::websocket;
use crate::engine::upstream::HomeLink;

/// Size from which a read counts as part of a flood.
const LARGE_READ_BYTES: usize = 16 * 1024;

/// Maximum bytes of pongs for one read; the newest ones are sent.
const PONGS_MAX_BYTES: usize = 2 * 1024;

/// Interval of hub pings to an app server that dials in while a long client message is arriving.
const UPLOAD_PING_INTERVAL_S: u32 = 10;

/// Next step of the reader.
#[derive(Debug)]
pub(super) enum Step {
    Continue,
    /// Read again after this time: the client has exceeded its quota.
    Throttle(Duration),
    /// Read again after yielding: there is more data.
    Yield,
    /// Close: the client has sent a hub close; the end of its transport follows.
    HubClose,
    /// End: the client has closed its transport, or answered our close. No data follows.
    TransportClosed,
    /// Close: the client violated the protocol or a limit.
    Broken(InboundError),
    /// End: the socket ended for this cause, or its data is unusable.
    Ended(Cause),
}

impl Step {
    /// Next step after a read of this many bytes within the quota.
    pub(super) fn after(bytes: usize) -> Self {
        if bytes >= LARGE_READ_BYTES { Self::Yield } else { Self::Continue }
    }
}

fn ping_of(protocol: HubProtocol) -> &'static [u8] {
    if protocol.is_binary() { &[2, 0x91, 6] } else { b"{\"type\":6}\x1e" }
}

/// Destination of one read's messages: the home link, or the shard itself.
pub(super) struct UpwardPath<'a> {
    state: &'a mut ShardState,
    home: &'a HomeLink,
    id: &'a str,
    slot: Slot,
    /// Number of messages, pings included.
    pub(super) messages: u64,
    /// Answers to the pings of this read.
    pongs: BytesMut,
    gate: Gate,
    /// Admitted messages to be forwarded together.
    allowed: Run,
    /// Link of a secondary used by this read, preferably a full one.
    pub(super) secondary: Option<HomeLink>,
    /// Time of this read, if a tap is active.
    read_at: Option<Instant>,
    pub(super) step: Step,
}

/// Run of adjacent messages for one link.
#[derive(Debug, Default)]
struct Run {
    place: Range<usize>,
    count: u64,
    /// Link of a secondary; `None` for the home.
    secondary: Option<HomeLink>,
}

impl<'a> UpwardPath<'a> {
    pub(super) fn new(state: &'a mut ShardState, (home, id, slot): (&'a HomeLink, &'a str, Slot), gate: Gate) -> Self {
        let (pongs, allowed, step, read_at) =
            (BytesMut::new(), Run::default(), Step::Continue, state.core.time_for_taps());
        Self { state, home, id, slot, messages: 0, pongs, gate, allowed, secondary: None, read_at, step }
    }

    /// Handles all complete messages of a piece of payload, and stores the rest.
    pub(super) fn take_messages(
        &mut self,
        partial: &mut PartialMessage,
        payload: &[u8],
        protocol: HubProtocol,
        limit_bytes: usize,
    ) -> Result<(), InboundError> {
        let mut received = self.resumption().map(|resumption| resumption.ownership().received);
        self.gate.note_contexts(self.state, partial.has_begun(), payload);
        let mut messages = partial.join(payload, protocol, limit_bytes);
        let mut held_from = None;
        if self.gate.is_open() {
            while let Some(message) = messages.next(received.as_mut())? {
                self.take_message(message);
            }
        } else {
            messages = messages.one_by_one();
            let taken = self.take_singly(protocol, &mut messages, received.as_mut());
            self.send_allowed(&messages);
            held_from = taken?;
        }
        let used = messages.used();
        match held_from {
            Some(from) => partial.hold(payload, from),
            None => partial.keep_rest(payload, used),
        }
        if let (Some(received), Some(resumption)) = (received, self.resumption()) {
            resumption.ownership_mut().received = received;
            let may_end_hold = used > 0 && resumption.ownership().is_on_hold();
            if received.is_owed() {
                owe_acknowledgement(self.state, self.slot);
            }
            if may_end_hold {
                end_hold(self.state, self.slot);
            }
        }
        Ok(())
    }

    /// Handles messages that the gate must admit, forwarding adjacent ones together. Returns the position of the first
    /// message that must wait for an app server.
    fn take_singly(
        &mut self,
        protocol: HubProtocol,
        messages: &mut HubMessages<'_>,
        mut received: Option<&mut ReceivedSequence>,
    ) -> Result<Option<usize>, InboundError> {
        loop {
            let before = received.as_deref().copied();
            let Some(message) = messages.next(received.as_deref_mut())? else { return Ok(None) };
            let Upward::Single { place, scan } = message else {
                self.send_allowed(messages);
                self.take_message(message);
                continue;
            };
            if !matches!(self.step, Step::Continue) {
                return Ok(None);
            }
            match self.gate.admit(self.state, self.slot, (protocol, scan.as_ref()), messages.slice(place.clone()))? {
                GateDecision::Forward(secondary) => self.allow(place, secondary, messages),
                GateDecision::ForwardTraced(traced, secondary) => {
                    self.send_allowed(messages);
                    self.send_run(secondary, &traced, 1);
                }
                GateDecision::Drop => self.drop_refused(messages.slice(place)),
                GateDecision::Wait => {
                    // Counted when it is read again.
                    if let (Some(received), Some(before)) = (received, before) {
                        *received = before;
                    }
                    return Ok(Some(place.start));
                }
            }
        }
    }

    fn allow(&mut self, place: Range<usize>, secondary: Option<HomeLink>, messages: &HubMessages<'_>) {
        let goes_along = self.allowed.secondary.as_ref().map(|link| link.id) == secondary.as_ref().map(|link| link.id);
        if self.allowed.place.end != place.start || !goes_along {
            self.send_allowed(messages);
            (self.allowed.place.start, self.allowed.secondary) = (place.start, secondary);
        }
        self.allowed.place.end = place.end;
        self.allowed.count += 1;
    }

    fn send_allowed(&mut self, messages: &HubMessages<'_>) {
        let Run { place, count, secondary } = mem::take(&mut self.allowed);
        if count == 0 {
            return;
        }
        self.send_run(secondary, messages.slice(place), count);
    }

    /// Sends adjacent messages, and records a full secondary.
    fn send_run(&mut self, secondary: Option<HomeLink>, bytes: &[u8], count: u64) {
        self.send(secondary.as_ref(), bytes, count, 0);
        if secondary.is_some() && self.secondary.as_ref().is_none_or(|known| !known.is_full()) {
            self.secondary = secondary;
        }
    }

    /// Drops a refused message. It counts towards the quota and is shown to the taps.
    fn drop_refused(&mut self, bytes: &[u8]) {
        self.messages += 1;
        let refused = UpwardMessages { bytes, count: 1, data_type: 0, read_at: self.read_at, to: None };
        self.state.core.tap_up(self.slot, &refused);
    }

    fn resumption(&mut self) -> Option<&mut Resumption> {
        let client = self.state.core.connections.get_mut(self.slot).filter(|client| client.is_resumable())?;
        client.cold_mut().resumption_mut()
    }

    pub(super) fn take_message(&mut self, message: Upward<'_>) {
        // Data after the client's own close is ignored.
        if !matches!(self.step, Step::Continue) {
            return;
        }
        match message {
            Upward::Close => self.step = Step::HubClose,
            Upward::Messages { bytes, count } => self.send(None, bytes, count, 0),
            // Produced only behind a closed gate.
            Upward::Single { .. } => {}
            Upward::Raw { bytes, kind } => self.send(None, &bytes, 1, kind.data_type()),
            Upward::Call { id, kind } => self.state.core.begin_call(self.slot, &id, kind),
            Upward::Acknowledgement(sequence_id) => {
                self.messages += 1;
                acknowledged(self.state, self.slot, sequence_id);
            }
            Upward::Ping => {
                self.messages += 1;
                let Some(client) = self.state.core.connections.get_mut(self.slot) else { return };
                // From now on, silence leads to a timeout.
                client.liveness_mut().pinged();
                let content = client.content();
                self.relay_ping(content);
            }
        }
    }

    /// Records that the client is alive, from a message or a part of one.
    pub(super) fn note_life(&mut self, has_begun: bool) {
        let now = self.state.core.tick();
        let Some(client) = self.state.core.connections.get_mut(self.slot) else { return };
        let (before, content) = (client.liveness_mut().note_received(now), client.content());
        if has_begun
            && client.liveness().has_pinged()
            && before / UPLOAD_PING_INTERVAL_S != now / UPLOAD_PING_INTERVAL_S
        {
            self.relay_ping(content);
        }
    }

    /// Sends a sign of life to an app server that measures the silence of clients.
    fn relay_ping(&self, content: Content) {
        if let (Content::Hub(protocol), true) = (content, self.home.capabilities.measures_silence) {
            self.home.send_data(self.id, ping_of(protocol), DataType::Other.number());
        }
    }

    /// Sends messages to an app server: a secondary's or the home's.
    fn send(&mut self, secondary: Option<&HomeLink>, bytes: &[u8], count: u64, data_type: i64) {
        self.messages += count;
        let counters = self.state.core.context.counters.hub(self.home.hub().get());
        counters.messages_up.add_alone(count);
        counters.bytes_up.add_alone(bytes.len() as u64);
        let link = secondary.unwrap_or(self.home);
        let shown = UpwardMessages { bytes, count, data_type, read_at: self.read_at, to: Some(link) };
        match self.state.core.tap_up(self.slot, &shown) {
            None => link.send_data(self.id, bytes, data_type),
            Some(mark) => link.send_marked(mark, (self.id, bytes), data_type),
        }
    }

    pub(super) fn answer_ping(&mut self, payload: &[u8]) {
        if matches!(self.step, Step::Continue) {
            self.messages += 1;
            if self.pongs.len() + payload.len() > PONGS_MAX_BYTES {
                self.pongs.clear();
            }
            websocket::put_pong(payload, &mut self.pongs);
        }
    }

    pub(super) fn finish(self, taken: Result<(), InboundError>) -> Step {
        // One write for all pings of a read.
        if !self.pongs.is_empty() {
            self.state.core.send_transport(self.slot, &self.pongs.freeze());
        }
        match (self.step, taken) {
            (Step::Continue, Err(error)) => Step::Broken(error),
            (step, _) => step,
        }
    }
}
