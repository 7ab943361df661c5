//! How a client connection ends: who is told what, in which order.
//!
//! It leaves its sets and its route first, so that nothing more is sent to it; then its client is told, then the
//! socket is closed. The place is freed when the socket has ended.

use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tracing::{debug, info};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubMessage};
use trunkline_protocol::limits::{CLOCK_SKEW_S, CONNECT_TIMEOUT_S};
use trunkline_protocol::manifest::CAUSE_HEADER;
use trunkline_protocol::service::{CloseConnection, ServiceMessage};

use super::Shard;
use super::past::{PastConnection, short};
use crate::clock::unix_ms;
use crate::shard::delivery::frame_for;
use crate::shard::directory::{Client, Content, Opening, Slot};
use crate::shard::outbox::Outbox;
use crate::transport::websocket::{self, CLOSE_APP_FAILED, CLOSE_GOING_AWAY, CLOSE_NORMAL};

/// How long a client may take to answer our close; the official server's.
const CLOSE_TIMEOUT_TICKS: u32 = 5;

/// What clients are told when something went wrong; details follow only where the hub wants them.
const CLOSED_WITH_ERROR: &str = "Connection closed with an error.";

/// An end, and who is told of it.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// Why: for counters, logs, the app server, and whoever asks later.
    pub cause: Cause,
    /// What is known besides.
    pub detail: Option<String>,
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
pub(crate) struct Farewell {
    /// What is shown only where the hub gives details; `None` for an end without error.
    detail: Option<String>,
    allow_reconnect: bool,
}

/// What the app server is told of an end.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// Nothing: it knows, or can't be told.
    None,
    Clean,
    Error(String),
}

impl Ending {
    /// The client closed, or its socket ended: which of them, the cause tells.
    #[must_use]
    pub(crate) fn by_client(cause: Cause) -> Self {
        Self { cause, detail: None, farewell: None, notice: Notice::Clean, raw_code: CLOSE_NORMAL }
    }

    /// The app server ended it, for this error if there is one, and has said so to the client of a hub. It may say more
    /// exactly why.
    #[must_use]
    pub(crate) fn by_app(error: Option<&str>, cause: Option<Cause>) -> Self {
        let (plain, raw_code) = match error {
            Some(_) => (Cause::AppError, CLOSE_APP_FAILED),
            None => (Cause::AppClosed, CLOSE_NORMAL),
        };
        let (cause, detail) = (cause.unwrap_or(plain), error.map(Into::into));
        Self { cause, detail, farewell: None, notice: Notice::None, raw_code }
    }

    /// Somebody other than its app server ordered it to be closed.
    #[must_use]
    pub(crate) fn ordered(reason: Option<&str>) -> Self {
        Self::commanded(Cause::Ordered, reason)
    }

    /// An operator closed it, and may have said why. It is not told to come again.
    #[must_use]
    pub(crate) fn by_operator(reason: Option<&str>) -> Self {
        Self::commanded(Cause::Operator, reason)
    }

    fn commanded(cause: Cause, reason: Option<&str>) -> Self {
        let detail: Option<String> = reason.map(Into::into);
        let farewell = Some(Farewell { detail: detail.clone(), allow_reconnect: false });
        Self { cause, detail, farewell, notice: Notice::Clean, raw_code: CLOSE_NORMAL }
    }

    /// It broke a rule or a limit; `raw_code` tells which to a client of a raw endpoint.
    #[must_use]
    pub(crate) fn broken_rule(cause: Cause, detail: &str, raw_code: u16) -> Self {
        Self { raw_code, ..Self::error(cause, format!("InvalidDataException: {detail}"), detail) }
    }

    /// It read too slowly.
    #[must_use]
    pub(crate) fn slow_client() -> Self {
        // No farewell: it would stand behind everything that the client doesn't read.
        let notice = Notice::Error("the client reads too slowly: its queue is over --outbox-max-bytes".into());
        Self { cause: Cause::SlowClient, detail: None, farewell: None, notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// It read slowly, and all together had too much waiting.
    #[must_use]
    pub(crate) fn outbox_total() -> Self {
        let text = "the client reads too slowly: all queues of its node together are over --outbox-total-max-bytes";
        Self { cause: Cause::OutboxTotal, notice: Notice::Error(text.into()), ..Self::slow_client() }
    }

    /// It was silent for too long. Text of the official server.
    #[must_use]
    pub(crate) fn timed_out() -> Self {
        let text = "Client hasn't sent a message/ping within the configured ClientTimeoutInterval.";
        Self::error(Cause::KeepAliveTimeout, format!("OperationCanceledException: {text}"), text)
    }

    /// The app server took a connection but never answered its hub handshake.
    #[must_use]
    pub(crate) fn not_opened() -> Self {
        let notice = Notice::Error("the hub handshake was not answered in time".into());
        Self { cause: Cause::AppHandshakeTimeout, detail: None, farewell: None, notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// Its home link is lost, or has gone with its app server, and it can't be given another one.
    #[must_use]
    pub(crate) fn home_lost(cause: Cause) -> Self {
        Self::come_again(cause, Notice::None)
    }

    /// It waited for an app server, and none came.
    #[must_use]
    pub(crate) fn no_app_server() -> Self {
        Self::come_again(Cause::NoAppServer, Notice::None)
    }

    #[must_use]
    pub(crate) fn drained() -> Self {
        Self::come_again(Cause::Drained, Notice::Clean)
    }

    fn come_again(cause: Cause, notice: Notice) -> Self {
        let farewell = Farewell { detail: None, allow_reconnect: true };
        Self { cause, detail: None, farewell: Some(farewell), notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// The access token with which it came has expired. With the official server too it is told to come again.
    #[must_use]
    pub(crate) fn token_expired() -> Self {
        Self::come_again(Cause::TokenExpired, Notice::Clean)
    }

    fn error(cause: Cause, detail: String, notice: &str) -> Self {
        let farewell = Some(Farewell { detail: Some(detail), allow_reconnect: true });
        let (detail, notice) = (Some(notice.into()), Notice::Error(notice.into()));
        Self { cause, detail, farewell, notice, raw_code: CLOSE_GOING_AWAY }
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

/// Tells people of an end, in the words of metrics and hooks.
pub(crate) fn log_end(hub: &str, id: &str, cause: Cause, detail: Option<&str>) {
    let connection = short(id);
    if cause.is_notable() {
        info!(hub, connection, %cause, detail, "client connection closed");
    } else {
        debug!(hub, connection, %cause, detail, "client connection closed");
    }
}

impl Shard {
    /// Ends a client connection; a second time is fine. Its place is freed when its socket has ended.
    pub(crate) fn end(self: &Rc<Self>, slot: Slot, ending: &Ending) {
        let now = self.tick();
        {
            let mut directory = self.directory.borrow_mut();
            let Some(client) = directory.get(slot).filter(|client| !client.is_closing()) else { return };
            self.take_note(client, ending);
            directory.close(slot, now + CLOSE_TIMEOUT_TICKS);
        }
        self.watches.gone(slot);
        self.end_route(slot);
        self.tell_app(slot, ending);
        self.tell_client(slot, ending);
    }

    /// Counts an end, logs it, and keeps it for whoever asks why.
    fn take_note(&self, client: &Client, ending: &Ending) {
        let population = self.population(client);
        population.open.follow(1, 0);
        self.hub_counters(client).closed.count(ending.cause);
        let lived = Duration::from_micros(self.now_us().saturating_sub(client.kept.opened_us));
        self.counters.lifetimes.observe_duration(lived);
        let hubs = self.shared.hubs.all();
        let hub = hubs.get(client.home.hub().get()).map_or("", |hub| hub.name());
        log_end(hub, &client.id, ending.cause, ending.detail.as_deref());
        let opening = client.kept.opening.as_ref().and_then(Opening::read).unwrap_or_default();
        let past = PastConnection::new(&client.id, ending.cause, ending.detail.as_deref());
        let opened_ms = unix_ms().saturating_sub(u64::try_from(lived.as_millis()).unwrap_or(u64::MAX));
        let past = PastConnection {
            hub: Some(hub.into()),
            transport: Some(client.transport),
            speech: Some(client.content.speech()),
            app_server: Some(self.shared.hubs.instance(client.home.app())).filter(|instance| !instance.is_empty()),
            opened_ms: Some(opened_ms),
            ..past.of(&opening)
        };
        self.shared.remember(self.index, past);
    }

    fn tell_app(&self, slot: Slot, ending: &Ending) {
        let error = match &ending.notice {
            Notice::None => return,
            Notice::Clean => None,
            Notice::Error(text) => Some(ByteString::from(text.as_str())),
        };
        let directory = self.directory.borrow();
        let Some(client) = directory.get(slot) else { return };
        let connection_id = ByteString::from(&*client.id);
        let cause = client.home.knows_causes().then(|| (CAUSE_HEADER.into(), vec![ending.cause.label().into()]));
        let headers = cause.into_iter().collect();
        client.home.send(&ServiceMessage::CloseConnection(CloseConnection { connection_id, error, headers }));
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
        self.end_id(&client.id, client.is_negotiated);
    }

    /// An id is over. One that a token names is remembered for as long as the token could revive it.
    pub(crate) fn end_id(&self, id: &Rc<str>, is_negotiated: bool) {
        if !is_negotiated {
            return self.shared.routes.remove(id);
        }
        self.shared.routes.end(id);
        let seconds = u32::try_from(CONNECT_TIMEOUT_S + 2 * CLOCK_SKEW_S).unwrap_or(u32::MAX);
        self.ended.borrow_mut().push_back((self.tick().saturating_add(seconds), id.clone()));
    }

    /// Frees the place of a client connection whose socket has ended, for this cause unless it was ended before.
    pub(crate) fn free(self: &Rc<Self>, slot: Slot, cause: Cause) {
        self.end(slot, &Ending::by_client(cause));
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
        for outer in self.shared.http_transports.sweep(self.shared.settings.http_transports.disconnect_timeout_s) {
            // The others end where they are, because their pipes do.
            if outer.take_inner_half().is_some() {
                self.end_id(&Rc::from(&**outer.id()), true);
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
