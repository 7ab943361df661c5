//! Thread of a shard: runtime, accept loops, inbox, and one tick per second.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use axum::Router;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::listener_set::{ListenerPurpose, ShardListener};
use crate::edge::frontend::{self, Endpoint, Layers, ListenerService};
use crate::edge::rest::Rest;
use crate::engine::client;
use crate::engine::link::{NAMES_PER_COMMAND_MAX, keep_link};
use crate::engine::shard::{AppSocket, Inbox, Shard, ShardFeatures, ShardMessage, Shared};
use crate::features::admission::Admission;
use crate::features::dialled_in::serve_link;
use crate::features::mirror::Mirrors;
use crate::features::presence_feed::PresenceFeeds;
use crate::features::watch::Watches;
use crate::features::webhook::Webhooks;
use crate::fleet::Fleet;
use crate::ground::config::PortSharing;
use crate::ground::net::node_port::NodePort;

/// Parts of a node that the listeners of a shard serve.
#[derive(Debug, Clone)]
pub(crate) struct ShardServices {
    pub(super) fleet: Fleet,
    pub(super) rest: Option<Rest>,
    pub(super) webhooks: Arc<Webhooks>,
}

/// Starts the thread of one shard. Without listeners, as in an embedded node, its sockets come from another runtime.
pub(super) fn start(
    index: u16,
    (shared, admission, services): (Arc<Shared>, Arc<Admission>, Option<ShardServices>),
    listeners: Vec<ShardListener>,
    inbox: Inbox,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listeners = {
        let _entered = runtime.enter();
        let register =
            |ShardListener { listener, layers, purpose }| Ok((TcpListener::from_std(listener)?, layers, purpose));
        listeners.into_iter().map(register).collect::<io::Result<Vec<_>>>()?
    };
    Builder::new().name(format!("shard-{index}")).spawn(move || {
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, stop.run_until_cancelled(run(index, (shared, admission, services), listeners, inbox)));
        drop(tasks);
        // A hanging DNS server must not delay the shutdown.
        runtime.shutdown_background();
    })
}

pub(crate) async fn run(
    index: u16,
    (shared, admission, services): (Arc<Shared>, Arc<Admission>, Option<ShardServices>),
    listeners: Vec<(TcpListener, Layers, ListenerPurpose)>,
    inbox: Inbox,
) {
    let features = ShardFeatures {
        taps: vec![Box::new(Mirrors::default()), Box::new(Watches::default())],
        feeds: vec![Box::new(PresenceFeeds::default())],
    };
    let shard = Shard::new(index, shared.clone(), features);
    if let (Some(own_inbox), Some(services)) = (shared.shards().get(usize::from(index)), services) {
        let ShardServices { fleet, rest, webhooks } = services;
        let counters = shared.counters_of(index);
        let endpoint = |rest: Option<Rest>| {
            let endpoint = Endpoint::new(shared.clone(), admission.clone(), counters.clone(), own_inbox.clone());
            Arc::new(endpoint.with_fleet(&fleet).with_webhooks(&webhooks).with_rest(rest))
        };
        let of_clients = rest.clone().filter(|_| shared.settings.rest.on_client_ports);
        let clients = endpoint(of_clients);
        let clients = ListenerService { router: clients.clone().into_router(), connects: Some(clients), app: None };
        let data_plane = ListenerService { router: endpoint(rest).into_rest_router(), connects: None, app: None };
        if let Some(broker) = fleet.broker() {
            let (pipes, gate) =
                (broker.listen(NodePort::Clients), frontend::ListenerGate::new(shared.clone(), counters.clone()));
            spawn_local(serve_pipes(pipes, gate, clients.router.clone()));
        }
        for (listener, layers, purpose) in listeners {
            let gate = frontend::ListenerGate::new(shared.clone(), counters.clone());
            let service = match purpose {
                ListenerPurpose::Clients => clients.clone(),
                ListenerPurpose::Rest => data_plane.clone(),
            };
            let (open, end) = (shared.limits.listeners.charge(1), end_of_listening(shared.clone()));
            spawn_local(async move {
                frontend::serve(listener, layers, service, gate, end).await;
                drop(open);
            });
        }
    }
    spawn_local(tick(shard.clone()));
    take_parcels(shard, admission, inbox).await;
}

/// Serves sockets of other nodes through a broker.
async fn serve_pipes(mut pipes: mpsc::Receiver<DuplexStream>, gate: frontend::ListenerGate, router: Router) {
    while let Some(pipe) = pipes.recv().await {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        spawn_local(frontend::serve_pipe(pipe, nowhere, gate.clone(), router.clone()));
    }
}

/// Waits until a listener has to close: when the drain is over, because a balancer may not repeat a back end's request
/// that is answered with 503, but tries another node if it can't connect. On a port shared with other nodes, these
/// accept new clients as soon as this node refuses them.
async fn end_of_listening(shared: Arc<Shared>) {
    match shared.settings.port_sharing {
        PortSharing::Alone => shared.listening_ended().await,
        PortSharing::WithNodes => shared.clients_refused().await,
    }
}

async fn tick(shard: Rc<Shard>) {
    let mut seconds = interval(Duration::from_secs(1));
    // A late tick counts once, so that not all clients of a frozen process seem silent.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        shard.advance();
    }
}

async fn take_parcels(shard: Rc<Shard>, admission: Arc<Admission>, mut inbox: Inbox) {
    while let Some(parcel) = inbox.recv().await {
        match parcel {
            ShardMessage::Batch(batch) => {
                let has_many_names = batch.commands.last().is_some_and(|it| it.names() >= NAMES_PER_COMMAND_MAX);
                let yields = batch.turn.is_some() || has_many_names;
                shard.apply_batch(batch);
                // While several apps are busy, clients are served between two turns, and within a long frame.
                if yields {
                    yield_now().await;
                }
            }
            ShardMessage::Accept(pending) => drop(spawn_local(client::serve(shard.clone(), pending))),
            ShardMessage::Inspect(inspection) => shard.inspect(inspection),
            ShardMessage::ServeLink(incoming) => {
                drop(spawn_local(serve_link(shard.clone(), admission.signing_keys.clone(), incoming)))
            }
            ShardMessage::KeepLink(pool, slot) => drop(spawn_local(keep_link(shard.clone(), pool, slot))),
            ShardMessage::Listen(listener, app) => {
                drop(spawn_local(listen(shard.clone(), admission.clone(), listener, app)))
            }
        }
    }
}

/// Serves clients from a listener of the embedding app, until the app stops taking the other sockets.
async fn listen(
    shard: Rc<Shard>,
    admission: Arc<Admission>,
    listener: std::net::TcpListener,
    app: mpsc::Sender<AppSocket>,
) {
    let (shared, index) = (shard.shared().clone(), shard.index());
    let (Ok(listener), Some(inbox)) = (TcpListener::from_std(listener), shared.shards().get(usize::from(index))) else {
        return;
    };
    let counters = shared.counters_of(index);
    let connects = Some(Arc::new(Endpoint::new(shared.clone(), admission, counters.clone(), inbox.clone())));
    let gate = frontend::ListenerGate::new(shared.clone(), counters);
    let service = ListenerService { router: Router::new(), connects, app: Some(app.clone()) };
    tokio::select! {
        () = frontend::serve(listener, Layers::plain(None), service, gate, std::future::pending()) => {}
        () = app.closed() => {}
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::engine::shard::ShardSender;
    use crate::ground::config::Settings;

    #[tokio::test]
    async fn a_node_accepts_until_it_has_drained_and_on_a_shared_port_until_it_refuses_clients() {
        for (port_sharing, ends) in [(PortSharing::Alone, false), (PortSharing::WithNodes, true)] {
            let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
            let settings = Settings { port_sharing, ..Settings::embedded(keys, Vec::new(), true) };
            let shared = Shared::alone(settings, vec![ShardSender::new().0]);
            shared.begin_drain();
            let has_ended = || end_of_listening(shared.clone()).now_or_never().is_some();
            assert!(!has_ended(), "it drains, and serves");
            shared.refuse_clients();
            assert_eq!(has_ended(), ends, "{port_sharing:?}");
            shared.end_listening();
            assert!(has_ended(), "{port_sharing:?}");
        }
    }
}
