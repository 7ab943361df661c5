//! Links dialled by app servers with Azure's SDK: one session per socket, without resumption.
//!
//! ```text
//!  upgrade ─► handshake ─► added to the app server's pool ─► carry ─► lost ─► its client connections are notified
//! ```

mod dial_in_ping;
mod dial_in_sink;
mod link_request;

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_tungstenite::tungstenite::protocol::Role as Side;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use trunkline_link::{LinkClock, LinkEnd, LinkSocket, answer_handshake_if};
use trunkline_protocol::service::{
    Answer, Capabilities, Incoming, LinkKind, Role, ServiceError, ServiceMessage, Session, SessionId, SessionSettings,
};

use crate::engine::link::{SessionOver, give_to_all, link_carrier};
use crate::engine::shard::{LinkLoss, Shard, ShardCommand};
use crate::engine::upstream::{
    AppServer, AppTarget, DialledIn, Hub, IncomingLink, LinkHandle, Pool, UpstreamWebSocket, into_websocket,
};
use crate::features::admission::SigningKeys;
use crate::features::inspection::warn_of_lost_app_server;
use crate::ground::auth::{Signer, TokenSigner};
use crate::ground::limits::LinkPermit;
use crate::ground::metrics::SessionCloseReason;

use dial_in_sink::DialInSink;
use link_request::ask_while_full;

pub(crate) use link_request::link_request;

/// Target of log lines about single links, for links of both directions.
const LOG_TARGET: &str = "trunkline_proxy::engine::link";

/// Seconds within which an app server, which reads continuously, detects a lost socket. An earlier probe could claim a
/// client that the app server is about to close.
const LOSS_NOTICED_S: u32 = 1;

/// Seconds within which an app server that has closed a link closes the clients of that link.
const CLIENTS_ENDED_S: u32 = 2;

/// Text logged by the app server when the node gives up a link.
const FAREWELL: &str = "this connection is closed: others replace it";

/// Arrival time for frames that the app server sent before the farewell reached it.
const FAREWELL_TIME: Duration = Duration::from_millis(500);

/// Maximum number of links per app server and hub.
const LINKS_MAX: usize = 256;

/// Close code for a link closed by its app server.
const CLOSE_NORMAL: u16 = 1000;

pub(crate) async fn serve_link(shard: Rc<Shard>, keys: Arc<SigningKeys>, incoming: Box<IncomingLink>) {
    let IncomingLink { upgrade, hub, instance, from, endpoint, signer, is_carried, refusal, permit } = *incoming;
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(target: LOG_TARGET, hub = hub.name(), %error, "upgrade of a link failed"),
    };
    let mut socket = LinkSocket::network(into_websocket(upgraded, Side::Server).await);
    // A refusal that repeats until the operator changes something.
    let mut lasting = None;
    let request = match answer_handshake_if(&mut socket, |request| {
        refusal.or_else(|| {
            lasting = too_many(&shard, &hub, (&instance, &signer.signer));
            lasting = lasting.take().or_else(|| for_senders_only(&hub, request.kind));
            lasting.clone()
        })
    })
    .await
    {
        Ok(request) => request,
        Err(end) => {
            if let Some(reason) = lasting {
                let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
                let detail = format!("{}{from}: {reason}", short_name(&instance));
                shard.shared().reports.conditions.report_refused_app(hub.name(), detail);
            }
            shard.counters().dial_in.handshakes_refused.increment();
            let reason = end.reason(Role::Proxy);
            debug!(target: LOG_TARGET, hub = hub.name(), app = %instance, reason, "link of an app server refused");
            return close_link(socket, &end).await;
        }
    };
    let pool = find_pool(&shard, &hub, (&instance, from));
    let (kind, allows_reconnect) = (request.kind, request.allow_stateful_reconnects);
    // A hub with a webhook refuses app servers, but accepts links for sends only.
    if kind != LinkKind::Weak {
        shard.shared().reports.conditions.clear_refused_app(hub.name());
        hub.note_reconnects(allows_reconnect);
    }
    let endpoint = endpoint.into();
    let link = make_link(&shard, &pool, DialledIn { kind, endpoint, signer, is_carried, allows_reconnect });
    carry((&shard, &keys), &pool, link, (socket, permit)).await;
}

fn too_many(shard: &Shard, hub: &Hub, (instance, signer): (&str, &Signer)) -> Option<String> {
    let count = hub.pool_of(shard.shared().hubs.app_servers.number(instance, signer)).map_or(0, |pool| pool.size());
    (count >= LINKS_MAX).then(|| format!("this app server has {LINKS_MAX} connections to this node for the hub"))
}

/// Refusal reason for a client-carrying link to a hub that has a webhook.
fn for_senders_only(hub: &Hub, kind: LinkKind) -> Option<String> {
    let is_refused = hub.has_webhook() && kind != LinkKind::Weak;
    is_refused.then(|| {
        "this hub has a webhook instead of app servers: remove the hub from --upstream-webhook, or from the app"
            .to_owned()
    })
}

fn find_pool(shard: &Shard, hub: &Arc<Hub>, (instance, from): (&str, Option<IpAddr>)) -> Arc<Pool> {
    let hubs = &shard.shared().hubs;
    let id = hubs.number(instance);
    hub.pool_or_add(id, || {
        let (name, target, group) = (short_name(instance), AppTarget::DialsIn(from), hubs.groups.default_one());
        let app = AppServer { id, instance: instance.to_owned(), name, target, group };
        Pool::new(hub.identity.clone(), Arc::new(app), 0, Arc::default())
    })
}

/// Display name of an app server: machine and start of the random part.
fn short_name(instance: &str) -> String {
    const RANDOM_CHARS: usize = 6;
    let short = instance.rsplit_once('_').and_then(|(machine, random)| Some((machine, random.get(..RANDOM_CHARS)?)));
    short.map_or_else(|| instance.to_owned(), |(machine, random)| format!("{machine}_{random}"))
}

fn make_link(shard: &Shard, pool: &Pool, dialled_in: DialledIn) -> Arc<LinkHandle> {
    let links = shard.shared().settings.links;
    let settings: SessionSettings = links.session();
    let session = Session::new(SessionId::FIRST, Role::Proxy, settings, shard.shared().now_ms());
    let (hub, app) = (pool.hub.clone(), pool.app.id);
    let share = shard.shared().share_of(&dialled_in.signer.signer);
    let answers = shard.shared().limits.answers.of_link(share);
    let link = LinkHandle::dialled_in(hub, app, links.outbox_max_bytes, session, dialled_in, &pool.retired);
    Arc::new(link.with_answers(answers))
}

async fn carry(
    (shard, keys): (&Rc<Shard>, &SigningKeys),
    pool: &Arc<Pool>,
    link: Arc<LinkHandle>,
    (socket, permit): (LinkSocket<UpstreamWebSocket>, Arc<LinkPermit>),
) {
    let clock = LinkClock::since(shard.shared().instant(0));
    let Some(offer) = link.outbox().offer() else { return };
    let plain = Answer { received: 0, capabilities: Capabilities::default() };
    let Ok(Some((attachment, _))) = link.attach(&offer, &plain, clock.now_ms()) else { return };
    let is_first = pool.is_empty();
    let slot = pool.add_link(&link);
    shard.shared().other_nodes().links_changed();
    let (hub, app) = (pool.hub.name(), &pool.app.name);
    match is_first {
        true => info!(hub, %app, "app server dialled in"),
        false => debug!(target: LOG_TARGET, hub, %app, slot, "link of an app server opened"),
    }
    give_to_all(shard, &ShardCommand::LinkOpened(link.clone())).await;

    let LinkSocket { reader, mut writer } = socket;
    let mut sink =
        DialInSink::new(shard, pool, &link).in_turns(link.token_signer().map_or(&Signer::Fleet, |token| &token.signer));
    let (ended, mut incoming) = (CancellationToken::new(), Incoming::default());
    let carrier = link_carrier(shard, &link, clock, attachment);
    let mut has_lost_key = false;
    let end = {
        let mut carrying = pin!(carrier.run(&mut incoming, reader, &mut writer, &mut sink, ended.cancelled()));
        tokio::select! {
            end = &mut carrying => end,
            () = send_farewell(&link) => {
                ended.cancel();
                carrying.await
            }
            () = lose_key(shard, keys, pool, &link) => {
                has_lost_key = true;
                ended.cancel();
                carrying.await
            }
            never = ask_while_full(&shard.shared().boot, pool, &link) => match never {},
        }
    };
    drop(sink);

    pool.socket_ended();
    let leftover = link.outbox().close_outbox();
    link.answers().into_iter().for_each(|answers| answers.trim(0));
    pool.remove(&link);
    let is_closed = matches!(end, LinkEnd::Closed | LinkEnd::Goodbye(_));
    if is_closed {
        pool.closed_by_app();
    }
    shard.shared().other_nodes().links_changed();
    let over = SessionOver::of_dialled_in(&end);
    let counters = &shard.counters().sessions;
    counters.ended.of(over.cause).increment();
    // After a farewell or a graceful stop the app server has closed its clients.
    if over.cause != SessionCloseReason::Farewell && !is_closed && !pool.is_stopping() {
        counters.frames_lost.add(leftover.uncertain.count + leftover.unsent.count);
    }
    if !has_lost_key {
        log_end(shard, pool, (&link, slot), &over, is_closed).await;
    }
    give_to_all(shard, &ShardCommand::LinkLost(Arc::new(loss_of(&link, &over, is_closed)))).await;
    if let Some(words) = close_words(&end, has_lost_key) {
        writer.close_socket(words).await;
    }
    drop((writer, permit));
    remove_if_gone(shard, pool).await;
}

/// Loss of a link. A dialled-in app server closes the link's clients when it detects the loss.
fn loss_of(link: &LinkHandle, over: &SessionOver, is_closed: bool) -> LinkLoss {
    LinkLoss {
        link: link.id,
        cause: over.of_connections(),
        noticed_within_s: if is_closed { CLIENTS_ENDED_S } else { LOSS_NOTICED_S },
        may_be_unnoticed: !is_closed,
        is_goodbye: true,
        pending_closes: Vec::new(),
    }
}

/// Close frame for the app server. It logs codes other than the normal one as errors.
fn close_words(end: &LinkEnd, has_lost_key: bool) -> Option<(u16, String)> {
    match end {
        _ if has_lost_key => Some((CLOSE_POLICY, KEY_GONE.to_owned())),
        LinkEnd::Closed | LinkEnd::Goodbye(_) | LinkEnd::Shutdown => Some((CLOSE_NORMAL, String::new())),
        _ => end.close_frame(Role::Proxy),
    }
}

/// Logs the end of a link. Simultaneous losses are one line; losing the last link means losing the app server.
async fn log_end(
    shard: &Shard,
    pool: &Arc<Pool>,
    (link, slot): (&LinkHandle, usize),
    over: &SessionOver,
    is_closed: bool,
) {
    let (hub, app) = (pool.hub.name(), &pool.app.name);
    let (reason, relayed) = (&over.reason, link.is_carried().then_some(true));
    if is_closed || over.is_planned() || pool.is_stopping() {
        return match pool.is_empty() {
            true => info!(hub, %app, reason, "app server closed its last link"),
            false => debug!(target: LOG_TARGET, hub, %app, slot, reason, "link closed"),
        };
    }
    let is_last = pool.is_empty() && link.may_carry_clients();
    let may_log = || shard.shared().limits.may_log_link(shard.shared().uptime());
    match pool.may_warn() {
        Some(_) if may_log() => info!(relayed, hub, %app, reason, "link lost"),
        _ => debug!(target: LOG_TARGET, relayed, hub, %app, slot, reason, "link lost"),
    }
    if is_last && may_log() {
        warn_of_lost_app_server(shard.shared(), std::slice::from_ref(pool), reason).await;
    }
}

/// Notifies an app server that a link is given up, so that it sends over its other links, and waits for the frames sent
/// before.
async fn send_farewell(link: &LinkHandle) {
    link.given_up.cancelled().await;
    link.send(&ServiceMessage::ServiceError(ServiceError { error: FAREWELL.into() }));
    sleep(FAREWELL_TIME).await;
}

/// Removes an app server that has not returned within the resume window.
async fn remove_if_gone(shard: &Shard, pool: &Arc<Pool>) {
    if !pool.is_empty() {
        return;
    }
    sleep(Duration::from_millis(shard.shared().settings.links.resume_window_ms)).await;
    let hub = shard.shared().hubs.of_pool(pool);
    if pool.is_empty() && hub.is_some_and(|hub| hub.remove_empty_pool(pool)) {
        info!(hub = pool.hub.name(), app = %pool.app.name, "app server gone");
    }
}

async fn close_link(mut socket: LinkSocket<UpstreamWebSocket>, end: &LinkEnd) {
    if let Some(words) = end.close_frame(Role::Proxy) {
        socket.writer.close_socket(words).await;
    }
}

/// Reason sent to an app server. A WebSocket close frame holds 123 bytes of it.
const KEY_GONE: &str = "the key that signed the token of this connection was removed";

/// WebSocket close code for a policy violation.
const CLOSE_POLICY: u16 = 1008;

/// Waits until the key of a link is removed, and sends the reason to its app server. Never returns for fleet
/// links.
///
/// ```text
///  keys reloaded ─► each link of that key ─► no new clients ─► reason sent ─► closed
/// ```
///
/// The first link to notice stops assignments to all links of its hub with that key. Otherwise clients would be
/// assigned to a link about to close.
async fn lose_key(shard: &Shard, keys: &SigningKeys, pool: &Pool, link: &LinkHandle) {
    let Some(signer) = link.token_signer() else {
        return std::future::pending().await;
    };
    keys.taken_away(signer, pool.hub.name()).await;
    take_from_homes(shard, pool, signer);
    link.send(&ServiceMessage::ServiceError(ServiceError { error: KEY_GONE.into() }));
}

/// Stops assigning clients to the hub's links with this key, and warns once per app server.
fn take_from_homes(shard: &Shard, pool: &Pool, signer: &TokenSigner) {
    let Some(hub) = shard.shared().hubs.of_pool(pool) else { return };
    for pool in hub.pools().iter() {
        let all = pool.links();
        let of_key = all.iter().filter(|link| link.token_signer() == Some(signer));
        let links = of_key.filter(|link| link.begin_leave()).count();
        if links > 0 {
            let (hub, app, key) = (hub.name(), &pool.app.name, &signer.signer);
            warn!(hub, %app, %key, links, "closing links: the key of the app server was removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_server_is_named_by_its_machine_and_a_few_random_characters() {
        assert_eq!(short_name("vm_e23391a992b3422b84d21b6dcb7f8c96"), "vm_e23391");
        assert_eq!(short_name("my_vm_e23391a992b3422b84d21b6dcb7f8c96"), "my_vm_e23391");
        assert_eq!([short_name("plain"), short_name("a_b")], ["plain", "a_b"]);
    }
}
