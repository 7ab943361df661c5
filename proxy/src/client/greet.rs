//! The hub handshake: bad ones are answered here, good ones open the connection at the app server. At a raw endpoint
//! there is none.

use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::time::timeout;
use tracing::debug;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HandshakeError, HandshakeRequest, HandshakeResponse, HubMessage, HubProtocol};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;
use trunkline_protocol::manifest::{EndpointKind, HubManifest, SlowClients, Transport};
use trunkline_protocol::service::{OpenConnection, ServiceMessage};

use super::inbound::{Inbound, Piece};
use super::read::{Reading, cause_of};
use crate::limits::Quota;
use crate::net::socket::Socket;
use crate::shard::delivery::frame_for;
use crate::shard::directory::{Client, Content, Status};
use crate::shard::outbox::Outbox;
use crate::shard::{DATA_TYPE_HANDSHAKE, PastConnection, Shard, Sockets, opening_until, short};
use crate::transport::websocket::{self, CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, Opcode};
use crate::upstream::{HomeLink, Hub, LinkHandle};

/// A farewell to somebody who was never let in waits for its socket only this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Who connects, as far as the connect request tells.
pub(super) struct Newcomer {
    pub(super) open: OpenConnection,
    pub(super) user: Option<String>,
    pub(super) is_negotiated: bool,
    pub(super) transport: Transport,
    /// When it is to be closed, in seconds since 1970.
    pub(super) expires_s: Option<u64>,
}

/// A hub handshake.
struct Greeting {
    request: HandshakeRequest,
    /// Its bytes, as the app server shall see them.
    bytes: Vec<u8>,
}

/// Why nobody is let in.
enum Refusal {
    /// With this hub handshake answer.
    Handshake(HandshakeError),
    /// Nothing is wrong with it, but its app servers have just gone, or this node goes.
    ComeAgain(Content),
    /// No hub handshake came in time.
    Late,
    /// It breaks this rule of its transport.
    Transport(String),
    /// It has closed its transport.
    Left,
    /// The socket is gone, for this cause.
    Gone(Cause),
}

impl Refusal {
    /// What it is in the taxonomy; `is_drained` if this node goes.
    fn cause(&self, is_drained: bool) -> Cause {
        match self {
            Self::Handshake(HandshakeError::Canceled) => Cause::HandshakeTooLarge,
            Self::Handshake(HandshakeError::Malformed { .. }) => Cause::HandshakeInvalid,
            Self::Handshake(_) => Cause::HandshakeUnsupported,
            Self::ComeAgain(_) if is_drained => Cause::Drained,
            Self::ComeAgain(_) => Cause::NoAppServer,
            Self::Late => Cause::HandshakeTimeout,
            Self::Transport(_) => Cause::WebsocketProtocol,
            Self::Left => Cause::ClientClosed,
            Self::Gone(cause) => *cause,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Handshake(HandshakeError::Malformed { detail }) => Some(detail.clone()),
            Self::Handshake(error) => Some(error.to_string()),
            Self::Transport(detail) => Some(detail.clone()),
            _ => None,
        }
    }
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

/// Reads the hub handshake, if there is to be one, and opens the connection; `None` when nothing came of it.
pub(super) async fn greet(
    shard: &Rc<Shard>,
    socket: Socket,
    early: Bytes,
    hub: &Arc<Hub>,
    newcomer: Newcomer,
) -> Option<Box<Reading>> {
    let settings = hub.settings();
    let transport = newcomer.transport;
    let mut inbound = Inbound::new(transport);
    let begun = shard.now_us();
    let patience = Duration::from_millis(settings.handshake_timeout_ms);
    let greeting = match settings.kind {
        EndpointKind::Hub => timeout(patience, read_handshake(shard, &socket, &mut inbound, early))
            .await
            .unwrap_or(Err(Refusal::Late))
            .and_then(|greeting| check(greeting, &settings, transport))
            .map(Some),
        EndpointKind::Raw => {
            inbound.keep(&early);
            Ok(None)
        }
    };
    if greeting.is_ok() && settings.kind == EndpointKind::Hub {
        let took = Duration::from_micros(shard.now_us().saturating_sub(begun));
        shard.counters().handshakes_of_clients.observe_duration(took);
    }
    let refusal = match greeting {
        Ok(greeting) if shard.is_drained() => Refusal::ComeAgain(content(greeting.as_ref())),
        Ok(greeting) => match hub.choose_home().or_else(|| wait_for_home(shard, hub, greeting.as_ref())) {
            Some(home) => return Some(let_in(shard, socket, inbound, greeting, home, newcomer, &settings)),
            None => Refusal::ComeAgain(content(greeting.as_ref())),
        },
        Err(refusal) => refusal,
    };
    take_note(shard, hub, &newcomer, &refusal);
    drop(timeout(FAREWELL_TIMEOUT, refuse(shard, &socket, inbound, &refusal, &settings)).await);
    None
}

/// Counts who is not let in, and keeps it for whoever asks why.
fn take_note(shard: &Shard, hub: &Hub, newcomer: &Newcomer, refusal: &Refusal) {
    let (cause, detail, id) = (refusal.cause(shard.is_drained()), refusal.detail(), &*newcomer.open.connection_id);
    shard.counters().hub(hub.index().get()).refused.count(cause);
    debug!(hub = hub.name(), connection = short(id), %cause, detail, "client connection refused");
    let past = PastConnection::new(id, cause, detail.as_deref()).of(&newcomer.open);
    let (name, transport) = (Some(hub.name().into()), Some(newcomer.transport));
    shard.shared().remember(shard.index(), PastConnection { hub: name, transport, ..past });
}

/// A home that is none, where new clients may wait until there is one.
fn wait_for_home(shard: &Shard, hub: &Hub, greeting: Option<&Greeting>) -> Option<HomeLink> {
    let may_wait = shard.shared().settings.rehoming.holds_new && greeting.is_some();
    may_wait.then(|| Arc::new(LinkHandle::nowhere(hub.index())))
}

fn content(greeting: Option<&Greeting>) -> Content {
    greeting.map_or(Content::Raw, |greeting| Content::Hub(greeting.request.protocol))
}

fn check(greeting: Greeting, settings: &HubManifest, transport: Transport) -> Result<Greeting, Refusal> {
    let protocol = greeting.request.protocol;
    if !settings.speaks(protocol) {
        return Err(HandshakeError::Protocol(protocol.name().into()).into());
    }
    if transport == Transport::ServerSentEvents && protocol == HubProtocol::MessagePack {
        return Err(HandshakeError::TransferFormat(protocol.name().into()).into());
    }
    Ok(greeting)
}

async fn read_handshake(
    shard: &Shard,
    socket: &Socket,
    inbound: &mut Inbound,
    early: Bytes,
) -> Result<Greeting, Refusal> {
    let mut payload = Vec::new();
    take(inbound, socket, &mut early.to_vec(), &mut payload)?;
    loop {
        if let Some((request, used)) = HandshakeRequest::read(&payload, HANDSHAKE_MAX_BYTES)? {
            inbound.keep(payload.get(used..).unwrap_or_default());
            payload.truncate(used);
            return Ok(Greeting { request, bytes: payload });
        }
        read(shard, socket, inbound, &mut payload).await?;
    }
}

/// Reads once, and takes the hub protocol's part of it.
async fn read(shard: &Shard, socket: &Socket, inbound: &mut Inbound, payload: &mut Vec<u8>) -> Result<(), Refusal> {
    poll_fn(|cx| {
        shard.with_scratch(|scratch| {
            socket.poll_read(cx, scratch).map(|read| match read {
                Ok(count @ 1..) => take(inbound, socket, scratch.get_mut(..count).unwrap_or_default(), payload),
                Ok(0) => Err(Refusal::Gone(Cause::SocketEnded)),
                Err(error) => Err(Refusal::Gone(cause_of(&error))),
            })
        })
    })
    .await
}

fn take(inbound: &mut Inbound, socket: &Socket, bytes: &mut [u8], payload: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut has_left = false;
    let taken = inbound.take_transport(bytes, |piece| match piece {
        Piece::Payload(piece, _) => payload.extend_from_slice(piece),
        // Nothing was sent to it yet, so there is room; a socket that takes nothing now is gone soon.
        Piece::Ping(payload) => drop(socket.try_write(&[IoSlice::new(&websocket::pong(&payload))])),
        Piece::Close => has_left = true,
    });
    match taken {
        Err(error) => Err(Refusal::Transport(error.to_string())),
        Ok(()) if has_left => Err(Refusal::Left),
        Ok(()) => Ok(()),
    }
}

/// Opens the connection at its app server, and here.
fn let_in(
    shard: &Rc<Shard>,
    socket: Socket,
    inbound: Inbound,
    greeting: Option<Greeting>,
    home: HomeLink,
    newcomer: Newcomer,
    settings: &HubManifest,
) -> Box<Reading> {
    let Newcomer { open, user, is_negotiated, transport, expires_s } = newcomer;
    let content = content(greeting.as_ref());
    let (id, serial): (Rc<str>, _) = (Rc::from(&*open.connection_id), shard.next_serial());
    let mut client = Client::new(id.clone(), serial, home.clone(), content, socket);
    (client.is_negotiated, client.transport) = (is_negotiated, transport);
    client.kept.opened_us = shard.now_us();
    client.may_miss = settings.slow_clients == SlowClients::Drop;
    // A raw event stream has nothing to ask with.
    client.has_inherent_keep_alive = match content {
        Content::Hub(_) => transport == Transport::LongPolling,
        Content::Raw => transport != Transport::WebSockets,
    };
    let now = shard.tick();
    client.status = match content {
        Content::Hub(_) => opening_until(now, settings.handshake_timeout_ms),
        Content::Raw => Status::Open,
    };
    (client.last_sent, client.last_heard) = (now, now);
    let protocol = greeting.as_ref().map(|greeting| ByteString::from_static(greeting.request.protocol.name()));
    let open = OpenConnection { protocol, ..open };
    // A node inside an app has no other one, and nobody who looks.
    if shard.shared().whose_sockets == Sockets::Own {
        client.kept.opening = Some(shard.keep_opening(&open));
    }
    // Here first: the app server's answer may come back before this function ends, on another thread.
    let slot = shard.open(client, user.as_deref());
    if let Some(expires_s) = expires_s {
        shard.close_at(slot, expires_s);
    }
    home.send(&ServiceMessage::OpenConnection(open));
    if let Some(greeting) = greeting {
        home.send_data(&id, &greeting.bytes, DATA_TYPE_HANDSHAKE);
    }
    if home.is_closed() {
        // Lost while it was chosen: those who were here then have another one, this one has not.
        shard.lose_home(slot, Cause::LinkLost);
    }
    let limits = &shard.shared().settings.limits;
    let quota = Quota::new(limits.messages_per_second, limits.bytes_per_second);
    let limit_bytes = settings.message_max_bytes;
    Box::new(Reading { id, slot, serial, home, content, limit_bytes, inbound, quota })
}

/// Says why, and waits for the client's own close: dropping the socket before could cost the client our last words.
async fn refuse(shard: &Shard, socket: &Socket, mut inbound: Inbound, refusal: &Refusal, settings: &HubManifest) {
    let mut farewell = last_words(refusal, settings);
    if poll_fn(|cx| farewell.poll_flush(cx, socket)).await.is_err()
        || matches!(refusal, Refusal::Left | Refusal::Gone(_))
    {
        return;
    }
    let mut ignored = Vec::new();
    while read(shard, socket, &mut inbound, &mut ignored).await.is_ok() {
        ignored.clear();
    }
}

fn last_words(refusal: &Refusal, settings: &HubManifest) -> Outbox {
    let mut words = Outbox::Empty;
    match refusal {
        Refusal::Gone(_) => return words,
        Refusal::Left => {}
        Refusal::Transport(_) => {
            words.push(websocket::close(CLOSE_PROTOCOL_ERROR));
            return words;
        }
        Refusal::Late => {
            let answer = HandshakeResponse { error: Some(HandshakeError::Canceled.to_string()) }.encode();
            words.push(websocket::frame(Opcode::Text, &answer));
        }
        Refusal::Handshake(error) => {
            let text = match error {
                HandshakeError::Malformed { detail } if settings.detailed_errors => {
                    format!("{error} InvalidDataException: {detail}")
                }
                other => other.to_string(),
            };
            let answer = HandshakeResponse { error: Some(text) }.encode();
            words.push(websocket::frame(Opcode::Text, &answer));
        }
        Refusal::ComeAgain(Content::Raw) => {
            words.push(websocket::close(CLOSE_GOING_AWAY));
            return words;
        }
        Refusal::ComeAgain(Content::Hub(protocol)) => {
            let mut close = BytesMut::new();
            protocol.encode(&HubMessage::Close(Close { error: None, allow_reconnect: true }), &mut close);
            words.push(websocket::frame(Opcode::Text, &HandshakeResponse::default().encode()));
            words.push(frame_for(*protocol, &close));
        }
    }
    words.push(websocket::close(CLOSE_NORMAL));
    words
}
