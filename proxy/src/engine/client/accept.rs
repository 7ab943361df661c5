//! Acceptance of a client: invalid handshakes are answered here, valid ones open the connection at the app server.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::timeout;
use tracing::debug;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::{Ownership, Wanted};
use trunkline_protocol::hub::HUB_PROTOCOL_VERSION_STATEFUL;
use trunkline_protocol::manifest::{EndpointKind, HubManifest, SlowClients, Transport};
use trunkline_protocol::service::{OpenConnection, ServiceMessage};

use super::handshake::{Handshake, HandshakeFailure, PendingSocket};
use super::inbound::Inbound;
use super::reader::{Reader, SecondaryReading};
use crate::engine::shard::moving::reconnect::come_back;
use crate::engine::shard::{
    Client, ClientOrigin, ClientTraits, Content, DATA_TYPE_HANDSHAKE, InterestHold, Liveness, PastConnection,
    PendingConnection, Serial, Shard, ShardState, Slot, Sockets, TapEvent, close_with_heads, opening_until, short,
};
use crate::engine::upstream::{HomeLink, Hub, LinkHandle, RouteChoice};
use crate::ground::auth::StickyServer;
use crate::ground::clock::unix_ns;
use crate::ground::limits::{HeadWeight, Quota};
use crate::ground::net::socket::Socket;
use crate::ground::telemetry::OpenSpan;

/// Time for sending the last frames to a refused client.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the hub handshake, if any, and opens the connection; `None` if the client was refused.
pub(super) async fn accept(
    shard: &Rc<Shard>,
    socket: Socket,
    early: Bytes,
    pending: PendingConnection,
) -> Option<Box<Reader>> {
    let (settings, mut span) = (pending.hub.settings(), handshake_span(shard, &pending));
    let may_return = pending.wants_stateful && pending.transport == Transport::WebSockets;
    let inbound = Inbound::new(pending.transport, pending.is_compressed);
    let mut pending_socket = PendingSocket { socket, inbound, may_return, limit_bytes: settings.message_max_bytes };
    let handshake = handshake(shard, &mut pending_socket, early, &settings, &pending).await;
    let announced = match &handshake {
        Ok(_) => announce(shard, &pending).await,
        Err(_) => None,
    };
    let failure = match handshake {
        Ok(handshake) if shard.is_drained() => HandshakeFailure::TryAgain(Handshake::content(handshake.as_ref())),
        Ok(handshake) => match find_home(shard, &pending, handshake.as_ref()).await {
            Some(_) if is_revoked(shard, &pending) => HandshakeFailure::Revoked(Handshake::content(handshake.as_ref())),
            Some(home) => {
                let reader = open_client(shard, pending_socket, handshake, home, pending, &settings);
                drop(announced);
                return Some(reader);
            }
            None => HandshakeFailure::TryAgain(Handshake::content(handshake.as_ref())),
        },
        Err(failure) => failure,
    };
    record(shard, &pending, &failure);
    if let Some(span) = &mut span {
        span.fail(failure.cause(shard.is_drained()).label());
    }
    drop(timeout(REFUSE_TIMEOUT, pending_socket.refuse(shard, &failure, &settings)).await);
    None
}

/// Publishes the client's subscriptions to other nodes before app server and client are notified, who may then cause
/// sends from any node. Only the first client of a hub, user or group waits for this.
async fn announce(shard: &Shard, pending: &PendingConnection) -> Option<Box<dyn InterestHold>> {
    let shared = shard.shared();
    let (interest, hub) = (shared.interest.as_ref()?, pending.hub.index());
    let groups = match pending.user.as_deref() {
        Some(user) if !shared.user_groups.is_empty() => shared.kept_groups_of(hub, user),
        _ => Vec::new(),
    };
    let user = pending.user.as_deref().map(Wanted::User);
    let groups = groups.iter().map(|group| Wanted::Group(group));
    let sets: Vec<_> = std::iter::once(Wanted::Everyone).chain(user).chain(groups).collect();
    Some(interest.clone().announce(hub, &sets).await)
}

/// Whether tokens of the user were revoked after this client's token was verified. The revocation does not close this
/// connection yet, so the client must present a token again.
fn is_revoked(shard: &Shard, pending: &PendingConnection) -> bool {
    let access = &shard.shared().access;
    pending.verified_at.is_some_and(|mark| access.has_revoked_since(mark, pending.user.as_deref()))
}

fn handshake_span(shard: &Shard, pending: &PendingConnection) -> Option<OpenSpan> {
    let (trace, tracer) = (pending.trace.as_ref()?, shard.shared().tracer.as_ref()?);
    let mut span = tracer.begin("handshake", Some(trace.context), unix_ns())?;
    span.set("signalr.hub", pending.hub.name());
    span.set("signalr.connection.id", short(&pending.open.connection_id));
    Some(span)
}

/// Reads and checks the hub handshake within the hub's timeout; a raw endpoint has none.
async fn handshake(
    shard: &Shard,
    socket: &mut PendingSocket,
    early: Bytes,
    settings: &HubManifest,
    pending: &PendingConnection,
) -> Result<Option<Handshake>, HandshakeFailure> {
    if settings.kind == EndpointKind::Raw {
        socket.inbound.keep(&early);
        return Ok(None);
    }
    let begun = shard.now_us();
    let limit = Duration::from_millis(settings.handshake_timeout_ms);
    let limit = pending.terms.handshake_timeout.unwrap_or(limit);
    let read = tokio::select! {
        read = timeout(limit, socket.read_handshake(shard, early)) => read,
        () = evicted(pending.head.as_ref()) => return Err(HandshakeFailure::SocketEnded(Cause::HeadsTotal)),
    };
    let Ok(read) = read else {
        // An `EventSource` that failed to connect retries automatically, possibly after its client has opened a newer
        // connection. Any message on the old stream, or its end, would close the newer one.
        if pending.transport == Transport::ServerSentEvents {
            let shared = shard.shared().clone();
            tokio::select! {
                () = socket.left(shard) => {}
                () = shared.clients_refused() => {}
            }
        }
        return Err(HandshakeFailure::TimedOut);
    };
    let handshake = read?.check(settings, pending.transport, pending.hub.capabilities().takes_blazor_pack)?;
    let took = Duration::from_micros(shard.now_us().saturating_sub(begun));
    shard.counters().handshakes_of_clients.observe_duration(took);
    Ok(Some(handshake))
}

async fn evicted(head: Option<&HeadWeight>) {
    match head {
        Some(head) => head.revoked().await,
        None => std::future::pending().await,
    }
}

fn record(shard: &Shard, pending: &PendingConnection, failure: &HandshakeFailure) {
    let (cause, detail) = (failure.cause(shard.is_drained()), failure.detail());
    let (hub, id) = (&pending.hub, &*pending.open.connection_id);
    shard.counters().hub(hub.index().get()).refused.count(cause);
    debug!(hub = hub.name(), connection = short(id), %cause, detail, "client connection refused");
    let past = PastConnection::new(id, cause, detail.as_deref()).with_opening(&pending.open);
    let (name, transport) = (Some(hub.name().into()), Some(pending.transport));
    shard.shared().remember(shard.index(), &PastConnection { hub: name, transport, ..past });
}

/// Finds a home for a client. Waits for a recently lost link if necessary.
async fn find_home(shard: &Shard, pending: &PendingConnection, handshake: Option<&Handshake>) -> Option<HomeLink> {
    let (hub, group) = (&pending.hub, RouteChoice::group_name(pending.group.as_ref()));
    if let Some(server) = &pending.terms.server {
        let own = find_home_at(shard, hub, server).await;
        if own.is_some() || server.is_required {
            return own.filter(|_| !shard.is_drained());
        }
    }
    let home = hub.choose_home_in(group).or_else(|| waiting_room(shard, hub, handshake));
    if home.is_some() {
        return home;
    }
    shard.shared().wait_for_link(hub, group).await;
    hub.choose_home_in(group).filter(|_| !shard.is_drained())
}

/// Finds a home at one app server. Does not wait for an app server that is certainly gone or only preferred.
async fn find_home_at(shard: &Shard, hub: &Hub, server: &StickyServer) -> Option<HomeLink> {
    let shared = shard.shared();
    let known_elsewhere = || shared.other_nodes().app_servers(hub.key()).contains(&server.instance);
    let id = match shared.hubs.app_servers.known(&server.instance) {
        Some(id) => id,
        None if known_elsewhere() => shared.hubs.number(&server.instance),
        // Tokens may contain any id, and numbers are permanent.
        None => return None,
    };
    if server.is_required && (hub.pool_of(id).is_some() || known_elsewhere()) {
        shared.wait_for_app(hub, id).await;
    }
    hub.choose_home_at(id)
}

/// Placeholder link for a client waiting for a home; `None` if it may not wait.
fn waiting_room(shard: &Shard, hub: &Hub, handshake: Option<&Handshake>) -> Option<HomeLink> {
    let may_wait = shard.shared().settings.rehoming.holds_new && handshake.is_some();
    may_wait.then(|| Arc::new(LinkHandle::nowhere(hub.identity.clone())))
}

/// Opens the connection at its app server, and here.
fn open_client(
    shard: &Rc<Shard>,
    pending_socket: PendingSocket,
    handshake: Option<Handshake>,
    home: HomeLink,
    mut pending: PendingConnection,
    settings: &HubManifest,
) -> Box<Reader> {
    let PendingSocket { socket, inbound, .. } = pending_socket;
    let (trace, head) = (pending.trace.take(), pending.head.take());
    let evicted = head.as_ref().map(|head| head.token().clone());
    let is_compressed = pending.is_compressed;
    let PendingConnection {
        hub, open, user, is_negotiated, transport, expires_s, terms, wants_stateful, group, ..
    } = pending;
    let is_stateful = wants_stateful
        && transport == Transport::WebSockets
        && handshake.as_ref().is_some_and(|handshake| handshake.request.version == HUB_PROTOCOL_VERSION_STATEFUL);
    let content = Handshake::content(handshake.as_ref());
    let protocol = handshake.as_ref().map(|handshake| ByteString::from_static(handshake.request.protocol.name()));
    let open = OpenConnection { protocol, ..open };
    let (id, is_traced): (Rc<str>, _) = (Rc::from(&*open.connection_id), trace.is_some());
    let (slot, serial) = shard.step(|state| {
        let (serial, now) = (state.core.connections.next_serial(), state.core.tick());
        let mut client = Client::new(id.clone(), serial, home.clone(), content, socket);
        client.cold_mut().set_origin(ClientOrigin {
            opened_us: shard.now_us(),
            trace,
            is_bound: terms.server.is_some_and(|server| server.is_required),
            is_movable: content == Content::Raw && settings.is_movable,
        });
        client.cold_mut().set_group(group);
        client.set_compressed(is_compressed);
        if let Content::Hub(protocol) = content
            && is_compressed
        {
            hub.note_compressed(protocol);
        }
        let may_miss = settings.slow_clients == SlowClients::Drop;
        let traits = ClientTraits { transport, is_negotiated, may_miss };
        client.set_traits(traits, Liveness::new(now, has_inherent_keep_alive(content, transport)));
        if let Some(limit_bytes) = settings.stateful_reconnect_buffer_bytes.filter(|_| is_stateful) {
            client.make_resumable(Ownership::new(limit_bytes));
        }
        begin_handshake(&mut client, settings, now);
        keep_head(&mut client, state, &open, head);
        // Opened here first, because the app server's answer may arrive before this function ends, on another thread.
        let slot = state.open_client(client, user.as_deref(), expires_s);
        state.core.tap_event(slot, &TapEvent::Opened);
        (slot, serial)
    });
    home.send(&ServiceMessage::OpenConnection(open));
    if let Some(handshake) = handshake {
        home.send_data(&id, &handshake.bytes, DATA_TYPE_HANDSHAKE);
    }
    catch_up(shard, slot, &home, evicted.is_some_and(|evicted| evicted.is_cancelled()).then_some(&id));
    let limits = &shard.shared().settings.limits;
    Box::new(Reader {
        id,
        slot,
        serial,
        hub,
        home,
        content,
        limit_bytes: settings.message_max_bytes,
        inbound,
        is_resumed: false,
        is_traced,
        quota: Quota::new(limits.messages_per_second, limits.bytes_per_second),
        secondaries: SecondaryReading::default(),
        is_unfinished: false,
    })
}

/// Handles a loss of the home and an eviction of the head that came before the route to the connection was known.
fn catch_up(shard: &Rc<Shard>, slot: Slot, home: &HomeLink, evicted: Option<&Rc<str>>) {
    if home.is_closed() {
        // The link's other clients were already reassigned.
        shard.lose_home(slot, Cause::LinkLost);
    }
    if let Some(id) = evicted {
        close_with_heads(shard.shared(), vec![ByteString::from(&**id)]);
    }
}

/// Keeps the client's head for another app server or an observer. An embedded node's app keeps the head anyway.
fn keep_head(client: &mut Client, state: &mut ShardState, open: &OpenConnection, weight: Option<HeadWeight>) {
    let (head, is_own) = (weight.map(Rc::new), state.core.context.shared.whose_sockets() == Sockets::Own);
    let opening = is_own.then(|| state.core.intern_opening(open, head.clone()));
    client.cold_mut().keep_opening(opening, head);
}

/// Starts the wait for the answer to the hub handshake, if any.
fn begin_handshake(client: &mut Client, settings: &HubManifest, now: u32) {
    match client.content() {
        Content::Hub(_) => client.life_mut().handshake_sent(opening_until(now, settings.handshake_timeout_ms)),
        Content::Raw => {
            client.life_mut().answered();
        }
    }
}

/// Whether the transport itself proves liveness, so that no pings or timeout are needed.
fn has_inherent_keep_alive(content: Content, transport: Transport) -> bool {
    // A raw event stream can't request a sign of life.
    match content {
        Content::Hub(_) => transport == Transport::LongPolling,
        Content::Raw => transport != Transport::WebSockets,
    }
}

/// Resumes a client over a new socket, if its connection still exists and belongs to it.
pub(super) fn resume(
    shard: &Rc<Shard>,
    socket: Socket,
    early: &[u8],
    pending: &PendingConnection,
    (slot, claimed): (Slot, Serial),
) -> Option<Box<Reader>> {
    let serial = shard.step(|state| come_back(state, slot, claimed, (socket, pending.is_compressed)));
    let serial = serial?;
    let (id, home, content, has_secondaries, is_traced) = {
        let mut state = shard.state();
        let client = state.core.connections.get_current(slot, serial)?;
        (
            client.id.clone(),
            client.home().clone(),
            client.content(),
            client.assignments().secondaries().is_some(),
            client.cold().origin().trace.is_some(),
        )
    };
    let limits = &shard.shared().settings.limits;
    let quota = Quota::new(limits.messages_per_second, limits.bytes_per_second);
    let mut inbound = Inbound::new(pending.transport, pending.is_compressed);
    inbound.keep(early);
    let limit_bytes = pending.hub.settings().message_max_bytes;
    let hub = pending.hub.clone();
    Some(Box::new(Reader {
        id,
        slot,
        serial,
        hub,
        home,
        content,
        limit_bytes,
        inbound,
        is_resumed: true,
        is_traced,
        quota,
        secondaries: SecondaryReading::new(has_secondaries),
        is_unfinished: false,
    }))
}
