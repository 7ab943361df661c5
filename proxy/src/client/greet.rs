//! The hub handshake: bad ones are answered here, good ones open the connection at the app server.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::timeout;
use tracing::debug;
use trunkline_protocol::hub::{HandshakeError, HandshakeRequest, HandshakeResponse};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::{OpenConnection, ServiceMessage};

use super::inbound::{Inbound, Piece};
use super::read::Reading;
use crate::counters::Cause;
use crate::directory::{Client, Status};
use crate::link::{Home, Hub};
use crate::outbox::Outbox;
use crate::shard::{Ending, Shard};
use crate::socket::Socket;
use crate::transport::websocket::{self, CLOSE_NORMAL, Opcode};

/// RFC 6455: an endpoint received what breaks the protocol.
const CLOSE_PROTOCOL_ERROR: u16 = 1002;

/// What a handshake in a service message is marked with.
const DATA_TYPE_HANDSHAKE: i64 = 1;

/// A farewell to somebody who was never let in waits for its socket only this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Who connects, as far as the connect request tells.
pub(super) struct Newcomer {
    pub(super) open: OpenConnection,
    pub(super) user: Option<String>,
    pub(super) is_negotiated: bool,
}

/// A hub handshake, and what came along with it.
struct Greeting {
    request: HandshakeRequest,
    /// Its bytes, as the app server shall see them.
    bytes: Vec<u8>,
    inbound: Inbound,
}

/// Why nobody is let in.
enum Refusal {
    /// With this hub handshake answer.
    Handshake(HandshakeError),
    /// With this close code.
    Transport(u16),
    /// The socket is gone.
    Gone,
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

/// Reads the hub handshake and opens the connection; `None` when nothing came of it.
pub(super) async fn greet(
    shard: &Rc<Shard>,
    socket: Rc<Socket>,
    early: Bytes,
    hub: &Arc<Hub>,
    newcomer: Newcomer,
) -> Option<Reading> {
    let settings = hub.settings();
    let patience = Duration::from_millis(settings.handshake_timeout_ms);
    let greeting = timeout(patience, read_handshake(shard, &socket, early))
        .await
        .unwrap_or(Err(HandshakeError::Canceled.into()))
        .and_then(|greeting| check(greeting, &settings));
    let refusal = match greeting {
        Ok(greeting) => match hub.choose_home() {
            Some(home) => return Some(let_in(shard, socket, greeting, home, newcomer, &settings)),
            None => Refusal::Transport(CLOSE_NORMAL),
        },
        Err(refusal) => refusal,
    };
    shard.counters().closed(Cause::Handshake).increment();
    refuse(&socket, refusal, &settings).await;
    None
}

fn check(greeting: Greeting, settings: &HubManifest) -> Result<Greeting, Refusal> {
    let protocol = greeting.request.protocol;
    if settings.speaks(protocol) { Ok(greeting) } else { Err(HandshakeError::Protocol(protocol.name().into()).into()) }
}

async fn read_handshake(shard: &Rc<Shard>, socket: &Socket, early: Bytes) -> Result<Greeting, Refusal> {
    let (mut inbound, mut payload) = (Inbound::default(), Vec::new());
    let mut early = early.to_vec();
    loop {
        let mut replies = Outbox::Empty;
        let mut has_ended = false;
        let mut take = |bytes: &mut [u8]| {
            inbound.take_transport(bytes, |piece| match piece {
                Piece::Payload(piece) => payload.extend_from_slice(piece),
                Piece::Ping(payload) => replies.push(websocket::pong(&payload)),
                Piece::Close => has_ended = true,
            })
        };
        let taken = if early.is_empty() {
            poll_fn(|cx| {
                shard.with_scratch(|scratch| {
                    socket.poll_read(cx, scratch).map(|read| match read {
                        Ok(0) | Err(_) => Err(Refusal::Gone),
                        Ok(count) => Ok(take(scratch.get_mut(..count).unwrap_or_default())),
                    })
                })
            })
            .await?
        } else {
            take(&mut std::mem::take(&mut early))
        };
        if let Err(error) = taken {
            debug!(%error, "a client breaks the WebSocket protocol before its hub handshake");
            return Err(Refusal::Transport(CLOSE_PROTOCOL_ERROR));
        }
        if has_ended {
            return Err(Refusal::Transport(CLOSE_NORMAL));
        }
        write_all(socket, replies).await;
        if let Some((request, used)) = HandshakeRequest::read(&payload, HANDSHAKE_MAX_BYTES)? {
            inbound.keep(payload.get(used..).unwrap_or_default());
            payload.truncate(used);
            return Ok(Greeting { request, bytes: payload, inbound });
        }
    }
}

/// Opens the connection at its app server, and here.
fn let_in(
    shard: &Rc<Shard>,
    socket: Rc<Socket>,
    greeting: Greeting,
    home: Home,
    newcomer: Newcomer,
    settings: &HubManifest,
) -> Reading {
    let Newcomer { open, user, is_negotiated } = newcomer;
    let protocol = greeting.request.protocol;
    let (id, serial): (Rc<str>, _) = (Rc::from(&*open.connection_id), shard.next_serial());
    let mut client = Client::new(id.clone(), serial, home.clone(), protocol, socket.clone());
    client.is_negotiated = is_negotiated;
    let now = shard.tick();
    let patience = u32::try_from(settings.handshake_timeout_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    client.status = Status::Opening { until: now.saturating_add(patience).saturating_add(1) };
    (client.last_sent, client.last_heard) = (now, now);
    // Here first: the app server's answer may come back before this function ends, on another thread.
    let slot = shard.open(client, user.as_deref());
    let open = OpenConnection { protocol: Some(ByteString::from_static(protocol.name())), ..open };
    home.send(&ServiceMessage::OpenConnection(open));
    home.send_data(&id, &greeting.bytes, DATA_TYPE_HANDSHAKE);
    if home.is_closed() {
        // Lost while it was chosen: those who were here then have been told, this one has not.
        shard.end(slot, &Ending::link_lost());
    }
    Reading {
        id,
        slot,
        serial,
        socket,
        home,
        protocol,
        limit_bytes: settings.message_max_bytes,
        inbound: greeting.inbound,
    }
}

async fn refuse(socket: &Socket, refusal: Refusal, settings: &HubManifest) {
    let mut farewell = Outbox::Empty;
    match refusal {
        Refusal::Gone => return,
        Refusal::Transport(code) => farewell.push(websocket::close(code)),
        Refusal::Handshake(error) => {
            let text = match &error {
                HandshakeError::Malformed { detail } if settings.detailed_errors => {
                    format!("{error} InvalidDataException: {detail}")
                }
                other => other.to_string(),
            };
            let answer = HandshakeResponse { error: Some(text) }.encode();
            farewell.push(websocket::frame(Opcode::Text, &answer));
            farewell.push(websocket::close(CLOSE_NORMAL));
        }
    }
    let bye = async {
        write_all(socket, farewell).await;
        // The client's own close: dropping the socket before it is read would cost the client our last words.
        let mut rest = [0; 512];
        while let Ok(1..) = poll_fn(|cx| socket.poll_read(cx, &mut rest)).await {}
    };
    drop(timeout(FAREWELL_TIMEOUT, bye).await);
}

/// Writes all; a socket that fails is seen by whoever reads it next.
async fn write_all(socket: &Socket, mut outbox: Outbox) {
    drop(poll_fn(|cx| outbox.poll_flush(cx, socket)).await);
}
