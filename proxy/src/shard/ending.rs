//! How a client connection ends: who is told what, in which order.
//!
//! It leaves its sets and its route first, so that nothing more is sent to it; then its client is told, then the
//! socket is closed. The place is freed when the socket has ended.

use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use trunkline_protocol::hub::{Close, HubMessage};
use trunkline_protocol::limits::{CLOCK_SKEW_S, CONNECT_TIMEOUT_S};
use trunkline_protocol::service::{CloseConnection, ServiceMessage};

use super::Shard;
use crate::counters::Cause;
use crate::delivery::frame_for;
use crate::directory::{Client, Content, Slot, Status};
use crate::outbox::Outbox;
use crate::transport::websocket::{self, CLOSE_APP_FAILED, CLOSE_GOING_AWAY, CLOSE_NORMAL};

/// How long a client may take to answer our close; the official server's.
const CLOSE_TIMEOUT_TICKS: u32 = 5;

/// What clients are told when something went wrong; details follow only where the hub wants them.
const CLOSED_WITH_ERROR: &str = "Connection closed with an error.";

/// An end, and who is told of it.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Why, for counters and logs.
    pub cause: Cause,
    /// The hub message that goes before the end of the transport; `None` when there was one, or nobody listens.
    pub farewell: Option<Farewell>,
    /// What the app server is told.
    pub notice: Notice,
    /// How the transport of a raw endpoint's client is closed: nothing else tells it why. That of a hub's client always
    /// ends well, because it was told before.
    pub raw_code: u16,
}

/// The last hub message.
#[derive(Debug, Clone)]
pub struct Farewell {
    /// What is shown only where the hub gives details; `None` for an end without error.
    detail: Option<String>,
    allow_reconnect: bool,
}

/// What the app server is told of an end.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Nothing: it knows, or can't be told.
    None,
    /// All is well.
    Clean,
    /// This went wrong.
    Error(String),
}

impl Ending {
    /// The client closed, or its socket ended.
    #[must_use]
    pub fn by_client() -> Self {
        Self { cause: Cause::Client, farewell: None, notice: Notice::Clean, raw_code: CLOSE_NORMAL }
    }

    /// The app server ended it, for this error if there is one, and has said so to the client of a hub.
    #[must_use]
    pub fn by_app(error: Option<&str>) -> Self {
        let raw_code = if error.is_some() { CLOSE_APP_FAILED } else { CLOSE_NORMAL };
        Self { cause: Cause::App, farewell: None, notice: Notice::None, raw_code }
    }

    /// Somebody other than its app server ordered it to be closed.
    #[must_use]
    pub fn ordered(reason: Option<&str>) -> Self {
        let farewell = Farewell { detail: reason.map(Into::into), allow_reconnect: false };
        Self { cause: Cause::App, farewell: Some(farewell), notice: Notice::Clean, raw_code: CLOSE_NORMAL }
    }

    /// It broke a rule or a limit; `raw_code` tells which to a client of a raw endpoint.
    #[must_use]
    pub fn broken_rule(detail: &str, raw_code: u16) -> Self {
        Self { raw_code, ..Self::error(Cause::Protocol, format!("InvalidDataException: {detail}"), detail) }
    }

    /// It read too slowly.
    #[must_use]
    pub fn slow_client() -> Self {
        // No farewell: it would stand behind everything that the client doesn't read.
        let notice = Notice::Error("the client reads too slowly: its queue is over --outbox-max-bytes".into());
        Self { cause: Cause::SlowClient, farewell: None, notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// It read slowly, and all together had too much waiting.
    #[must_use]
    pub fn outbox_total() -> Self {
        let text = "the client reads too slowly: all queues of its node together are over --outbox-total-max-bytes";
        Self { cause: Cause::OutboxTotal, notice: Notice::Error(text.into()), ..Self::slow_client() }
    }

    /// It was silent for too long. Text of the official server.
    #[must_use]
    pub fn timed_out() -> Self {
        let text = "Client hasn't sent a message/ping within the configured ClientTimeoutInterval.";
        Self::error(Cause::Timeout, format!("OperationCanceledException: {text}"), text)
    }

    /// The app server took a connection but never answered its hub handshake.
    #[must_use]
    pub fn not_opened() -> Self {
        let notice = Notice::Error("the hub handshake was not answered in time".into());
        Self { cause: Cause::Handshake, farewell: None, notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// Its home link is lost, and it can't be given another one.
    #[must_use]
    pub fn link_lost() -> Self {
        Self::come_again(Cause::LinkLost, Notice::None)
    }

    /// It waited for an app server, and none came.
    #[must_use]
    pub fn no_app_server() -> Self {
        Self::come_again(Cause::NoAppServer, Notice::None)
    }

    /// The node stops.
    #[must_use]
    pub fn drained() -> Self {
        Self::come_again(Cause::Drained, Notice::Clean)
    }

    fn come_again(cause: Cause, notice: Notice) -> Self {
        let farewell = Farewell { detail: None, allow_reconnect: true };
        Self { cause, farewell: Some(farewell), notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// The access token with which it came has expired. With the official server too it is told to come again.
    #[must_use]
    pub fn token_expired() -> Self {
        Self::come_again(Cause::TokenExpired, Notice::Clean)
    }

    fn error(cause: Cause, detail: String, notice: &str) -> Self {
        let farewell = Farewell { detail: Some(detail), allow_reconnect: true };
        Self { cause, farewell: Some(farewell), notice: Notice::Error(notice.into()), raw_code: CLOSE_GOING_AWAY }
    }
}

impl Farewell {
    fn message(&self, with_details: bool) -> HubMessage {
        let error = self.detail.as_ref().map(|detail| {
            let text = if with_details { format!("{CLOSED_WITH_ERROR} {detail}") } else { CLOSED_WITH_ERROR.into() };
            ByteString::from(text)
        });
        HubMessage::Close(Close { error, allow_reconnect: self.allow_reconnect })
    }
}

impl Shard {
    /// Ends a client connection; a second time is fine. Its place is freed when its socket has ended.
    pub fn end(self: &Rc<Self>, slot: Slot, ending: &Ending) {
        let now = self.tick();
        {
            let mut directory = self.directory.borrow_mut();
            let Some(client) = directory.get_mut(slot) else { return };
            if client.is_closing() {
                return;
            }
            client.status = Status::Closing { until: now + CLOSE_TIMEOUT_TICKS };
            client.release_all();
            directory.leave_all(slot);
        }
        self.counters.closed(ending.cause).increment();
        self.tell_app(slot, &ending.notice);
        self.tell_client(slot, ending);
        self.end_route(slot);
    }

    fn tell_app(&self, slot: Slot, notice: &Notice) {
        let error = match notice {
            Notice::None => return,
            Notice::Clean => None,
            Notice::Error(text) => Some(ByteString::from(text.as_str())),
        };
        let directory = self.directory.borrow();
        let Some(client) = directory.get(slot) else { return };
        let connection_id = ByteString::from(&*client.id);
        client.home.send(&ServiceMessage::CloseConnection(CloseConnection {
            connection_id,
            error,
            headers: Vec::new(),
        }));
    }

    fn tell_client(self: &Rc<Self>, slot: Slot, ending: &Ending) {
        if matches!(ending.cause, Cause::SlowClient | Cause::OutboxTotal) {
            return self.cut(slot);
        }
        if let Some(client) = self.directory.borrow_mut().get_mut(slot) {
            let last_words = self.last_words(client, ending);
            self.with_outbox(client, |outbox, _| last_words.into_iter().flatten().for_each(|frame| outbox.push(frame)));
        }
        self.flush(slot);
    }

    fn last_words(&self, client: &Client, ending: &Ending) -> [Option<Bytes>; 2] {
        let Content::Hub(protocol) = client.content else { return [None, Some(websocket::close(ending.raw_code))] };
        let farewell = ending.farewell.as_ref().map(|farewell| {
            let hubs = self.shared.hubs.all();
            let with_details = hubs.get(client.home.hub().get()).is_some_and(|hub| hub.settings().detailed_errors);
            let mut message = BytesMut::new();
            protocol.encode(&farewell.message(with_details), &mut message);
            frame_for(protocol, &message)
        });
        [farewell, Some(websocket::close(CLOSE_NORMAL))]
    }

    fn end_route(&self, slot: Slot) {
        let directory = self.directory.borrow();
        let Some(client) = directory.get(slot) else { return };
        self.shared.count_client(self.index, client.home.hub(), -1);
        self.end_id(&client.id, client.is_negotiated);
    }

    /// An id is over. One that a token names is remembered for as long as the token could revive it.
    pub fn end_id(&self, id: &Rc<str>, is_negotiated: bool) {
        if !is_negotiated {
            return self.shared.routes.remove(id);
        }
        self.shared.routes.end(id);
        let seconds = u32::try_from(CONNECT_TIMEOUT_S + 2 * CLOCK_SKEW_S).unwrap_or(u32::MAX);
        self.ended.borrow_mut().push_back((self.tick().saturating_add(seconds), id.clone()));
    }

    /// Frees the place of a client connection whose socket has ended.
    pub fn free(self: &Rc<Self>, slot: Slot) {
        self.end(slot, &Ending::by_client());
        self.expiries.borrow_mut().forget(slot);
        if let Some(mut client) = self.directory.borrow_mut().remove(slot) {
            // What only a task would have written leaves now or never: our answer to a close, for one.
            let mut cx = Context::from_waker(Waker::noop());
            let _ = self.with_outbox(&mut client, |outbox, socket| outbox.poll_flush(&mut cx, socket));
            // Whatever still waits is gone.
            self.with_outbox(&mut client, |outbox, _| *outbox = Outbox::Empty);
        }
    }

    /// Ends connections whose clients send no requests any more. One shard does it for the whole node.
    pub(super) fn forget_absent(&self) {
        if self.index != 0 {
            return;
        }
        for carried in self.shared.carried.sweep(self.shared.settings.carried.disconnect_timeout_s) {
            // The others end where they are, because their pipes do.
            if carried.begin().is_some() {
                self.end_id(&Rc::from(carried.id()), true);
            }
        }
    }

    /// Forgets ids whose tokens can't be used any more.
    pub(super) fn forget_ended(&self, now: u32) {
        let mut ended = self.ended.borrow_mut();
        while let Some((_, id)) = ended.pop_front_if(|(until, _)| *until <= now) {
            self.shared.routes.forget(&id);
        }
    }
}
