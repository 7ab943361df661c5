//! The task of a link that an app server has dialled, as Azure's SDK does: one session, which ends with its socket.
//!
//! ```text
//!  upgrade ─► handshake ─► in the pool of its app server ─► carry ─► lost ─► its client connections are told
//! ```

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::Role as Side;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use trunkline_link::{LinkClock, LinkEnd, LinkSocket, answer_handshake_if};
use trunkline_protocol::service::{
    Answer, Capabilities, Incoming, LinkKind, Role, ServiceError, ServiceMessage, Session, SessionId, SessionSettings,
};

use super::attachment::link_carrier;
use super::dial_in_sink::DialInSink;
use super::give_to_all;
use super::link_request::ask_while_full;
use super::lost_app_server::warn_of_lost_app_server;
use super::lost_key::{CLOSE_POLICY, KEY_GONE, lose_key};
use super::session_over::SessionOver;
use crate::auth::Signer;
use crate::metrics::SessionCloseReason;
use crate::shard::{LinkLoss, Shard, ShardCommand};
use crate::upstream::{
    AppServer, AppTarget, DialledIn, Hub, IncomingLink, LinkHandle, Pool, UpstreamWebSocket, into_websocket,
};

/// Seconds within which an app server notices the end of a socket, if it does: it reads all the time. Asked earlier, it
/// could answer for a client that it is about to end.
const LOSS_NOTICED_S: u32 = 1;

/// Seconds within which an app server that has closed a link has ended the clients that it had by that.
const CLIENTS_ENDED_S: u32 = 2;

/// Text that an app server logs when a link of it is given up.
const FAREWELL: &str = "this connection is given up: others take its place";

/// Time in which what an app server has sent before it knew of the farewell arrives.
const FAREWELL_TIME: Duration = Duration::from_millis(500);

/// Maximum number of links that one app server may have for one hub.
const LINKS_MAX: usize = 256;

/// Close code of a link that its app server has closed.
const CLOSE_NORMAL: u16 = 1000;

/// An app server that is gone is not waited for when its link is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves a link from its upgrade to its end.
pub(crate) async fn serve_link(shard: Rc<Shard>, incoming: Box<IncomingLink>) {
    let IncomingLink { upgrade, hub, instance, endpoint, signer, is_carried, refusal } = *incoming;
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(hub = hub.name(), %error, "the upgrade of a link broke off"),
    };
    let mut socket = LinkSocket::network(into_websocket(upgraded, Side::Server).await);
    let request = match answer_handshake_if(&mut socket, |request| {
        refusal
            .or_else(|| too_many(&shard, &hub, (&instance, &signer.signer)))
            .or_else(|| for_senders_only(&hub, request.kind))
    })
    .await
    {
        Ok(request) => request,
        Err(end) => {
            shard.counters().dial_in.handshakes_refused.increment();
            let reason = end.reason(Role::Proxy);
            debug!(hub = hub.name(), app = %instance, reason, "a link of an app server is not opened");
            return close(socket, &end).await;
        }
    };
    let pool = find_pool(&shard, &hub, &instance);
    let (kind, allows_reconnect) = (request.kind, request.allow_stateful_reconnects);
    if kind != LinkKind::Weak {
        hub.learn_reconnects(allows_reconnect);
    }
    let endpoint = endpoint.into();
    let link = make_link(&shard, &pool, DialledIn { kind, endpoint, signer, is_carried, allows_reconnect });
    carry(&shard, &pool, link, socket).await;
}

/// Reason to refuse a link of an app server that has too many.
fn too_many(shard: &Shard, hub: &Hub, (instance, signer): (&str, &Signer)) -> Option<String> {
    let count = hub.pool_of(shard.shared().hubs.app_servers().number(instance, signer)).map_or(0, |pool| pool.size());
    (count >= LINKS_MAX).then(|| format!("this app server has {LINKS_MAX} connections to this node for the hub"))
}

/// Reason to refuse a link that would carry clients, where a webhook has them.
fn for_senders_only(hub: &Hub, kind: LinkKind) -> Option<String> {
    let is_refused = hub.has_webhook() && kind != LinkKind::Weak;
    is_refused.then(|| "this hub has a webhook in place of app servers (--upstream-webhook)".to_owned())
}

/// Finds the pool of an app server's links, or begins one.
fn find_pool(shard: &Shard, hub: &Arc<Hub>, instance: &str) -> Arc<Pool> {
    let hubs = &shard.shared().hubs;
    let id = hubs.number(instance);
    hub.pool_or_add(id, || {
        let (name, target, group) = (short_name(instance), AppTarget::DialsIn, hubs.groups().default_one());
        let app = AppServer { id, instance: instance.to_owned(), name, target, group };
        Pool::new(hub.identity().clone(), Arc::new(app), 0, Arc::default())
    })
}

/// Name of an app server for people: its machine, and the beginning of what is random.
fn short_name(instance: &str) -> String {
    const RANDOM_CHARS: usize = 6;
    let short = instance.rsplit_once('_').and_then(|(machine, random)| Some((machine, random.get(..RANDOM_CHARS)?)));
    short.map_or_else(|| instance.to_owned(), |(machine, random)| format!("{machine}_{random}"))
}

fn make_link(shard: &Shard, pool: &Pool, dialled_in: DialledIn) -> Arc<LinkHandle> {
    let links = shard.shared().settings.links;
    let settings: SessionSettings = links.session();
    let session = Session::new(SessionId::FIRST, Role::Proxy, settings, shard.shared().now_ms());
    let (hub, app) = (pool.hub().clone(), pool.app().id);
    Arc::new(LinkHandle::dialled_in(hub, app, links.outbox_max_bytes, session, dialled_in, pool.retired()))
}

async fn carry(shard: &Rc<Shard>, pool: &Arc<Pool>, link: Arc<LinkHandle>, socket: LinkSocket<UpstreamWebSocket>) {
    let clock = LinkClock::since(shard.shared().instant(0));
    let Some(offer) = link.outbox().offer() else { return };
    let plain = Answer { received: 0, capabilities: Capabilities::default() };
    let Ok(Some((attachment, _))) = link.attach(&offer, &plain, clock.now_ms()) else { return };
    let is_first = pool.is_empty();
    let slot = pool.add(&link);
    shard.shared().other_nodes().links_changed();
    let (hub, app) = (pool.hub().name(), &pool.app().name);
    match is_first {
        true => info!(hub, %app, "an app server has dialled in"),
        false => debug!(hub, %app, slot, "an app server has opened a link"),
    }
    give_to_all(shard, &ShardCommand::LinkOpened(link.clone())).await;

    let LinkSocket { reader, mut writer } = socket;
    let mut sink = DialInSink::new(shard, pool, &link);
    let (ended, mut incoming) = (CancellationToken::new(), Incoming::default());
    let carrier = link_carrier(shard, &link, clock, attachment);
    let mut has_lost_key = false;
    let end = {
        let mut carrying = pin!(carrier.run(&mut incoming, reader, &mut writer, &mut sink, ended.cancelled()));
        tokio::select! {
            end = &mut carrying => end,
            () = say_farewell(&link) => {
                ended.cancel();
                carrying.await
            }
            () = lose_key(shard, pool, &link) => {
                has_lost_key = true;
                ended.cancel();
                carrying.await
            }
            never = ask_while_full(&shard.shared().settings.node, pool, &link) => match never {},
        }
    };
    drop(sink);

    pool.socket_ended();
    let leftover = link.outbox().close();
    pool.remove(&link);
    shard.shared().other_nodes().links_changed();
    let over = SessionOver::of_dialled_in(&end);
    let counters = &shard.counters().sessions;
    counters.ended.of(over.cause).increment();
    // Who says goodbye has ended what it had.
    if over.cause != SessionCloseReason::Farewell {
        counters.frames_lost.add(leftover.uncertain.count + leftover.unsent.count);
    }
    if !has_lost_key {
        log_end(shard, pool, (&link, slot), &over).await;
    }
    // Whoever dials in ends the clients of a link with it, once it notices.
    let may_be_unnoticed = !matches!(end, LinkEnd::Closed | LinkEnd::Goodbye(_));
    let noticed_within_s = if may_be_unnoticed { LOSS_NOTICED_S } else { CLIENTS_ENDED_S };
    let (cause, unheard) = (over.of_connections(), Vec::new());
    let loss = LinkLoss { link: link.id(), cause, noticed_within_s, may_be_unnoticed, is_goodbye: true, unheard };
    give_to_all(shard, &ShardCommand::LinkLost(Arc::new(loss))).await;
    // A close is answered; any other code than this is an error to the app server.
    let words = match end {
        _ if has_lost_key => Some((CLOSE_POLICY, KEY_GONE.to_owned())),
        LinkEnd::Closed | LinkEnd::Goodbye(_) | LinkEnd::Shutdown => Some((CLOSE_NORMAL, String::new())),
        _ => end.close_frame(Role::Proxy),
    };
    if let Some(words) = words {
        drop(timeout(CLOSE_TIMEOUT, writer.close(words)).await);
    }
    drop(writer);
    forget_if_gone(shard, pool).await;
}

/// Logs the end of a link; several that are lost together are one warning. The last one is that of its app server.
async fn log_end(shard: &Shard, pool: &Arc<Pool>, (link, slot): (&LinkHandle, usize), over: &SessionOver) {
    let (hub, app) = (pool.hub().name(), &pool.app().name);
    let (reason, carried) = (&over.reason, link.is_carried());
    if over.is_planned() || pool.is_draining() {
        return match pool.is_empty() {
            true => info!(hub, %app, reason, "an app server has closed its last link"),
            false => debug!(hub, %app, slot, reason, "link closed"),
        };
    }
    match pool.may_warn() {
        Some(others) => warn!(carried, hub, %app, slot, reason, others, "link lost"),
        None => debug!(carried, hub, %app, slot, reason, "link lost"),
    }
    if pool.is_empty() && link.may_carry_clients() {
        warn_of_lost_app_server(shard.shared(), std::slice::from_ref(pool), reason).await;
    }
}

/// Tells an app server that a link is given up, and takes what it has sent before it knew: from then on it sends over
/// others.
async fn say_farewell(link: &LinkHandle) {
    link.given_up().cancelled().await;
    link.send(&ServiceMessage::ServiceError(ServiceError { error: FAREWELL.into() }));
    sleep(FAREWELL_TIME).await;
}

/// Forgets an app server that has not come back for a while.
async fn forget_if_gone(shard: &Shard, pool: &Arc<Pool>) {
    if !pool.is_empty() {
        return;
    }
    sleep(Duration::from_millis(shard.shared().settings.links.resume_window_ms)).await;
    let hub = shard.shared().hubs.of_pool(pool);
    if pool.is_empty() && hub.is_some_and(|hub| hub.remove_empty_pool(pool)) {
        info!(hub = pool.hub().name(), app = %pool.app().name, "the app server is gone");
    }
}

async fn close(mut socket: LinkSocket<UpstreamWebSocket>, end: &LinkEnd) {
    if let Some(words) = end.close_frame(Role::Proxy) {
        drop(timeout(CLOSE_TIMEOUT, socket.writer.close(words)).await);
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
