//! A shard's thread: a runtime of its own, an accept loop, an inbox, a tick per second.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::frontend::{self, Endpoint, Layers};
use crate::link::keep_link;
use crate::shard::{Inbox, Parcel, Shard, Shared, Turn};

/// Where a shard gets its sockets from.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) layers: Layers,
}

/// Starts the thread of one shard; without a door it gets its sockets from somebody else's.
pub(super) fn start(
    index: u16,
    shared: Arc<Shared>,
    doors: Vec<Door>,
    inbox: Inbox,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let doors = {
        let _entered = runtime.enter();
        let open = |door: Door| Ok((tokio::net::TcpListener::from_std(door.listener)?, door.layers));
        doors.into_iter().map(open).collect::<io::Result<Vec<_>>>()?
    };
    Builder::new().name(format!("shard-{index}")).spawn(move || {
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, stop.run_until_cancelled(run(index, shared, doors, inbox)));
    })
}

pub(crate) async fn run(index: u16, shared: Arc<Shared>, doors: Vec<(tokio::net::TcpListener, Layers)>, inbox: Inbox) {
    let shard = Shard::new(index, shared.clone());
    if let Some(own_inbox) = shared.shards().get(usize::from(index)) {
        let counters = shared.counters_of(index);
        let router = Endpoint::new(shared.clone(), counters.clone(), own_inbox.clone()).into_router();
        for (listener, layers) in doors {
            let door = frontend::Door::new(shared.clone(), counters.clone());
            spawn_local(frontend::serve(listener, layers, router.clone(), door));
        }
    }
    spawn_local(tick(shard.clone()));
    take_parcels(shard, inbox).await;
}

async fn tick(shard: Rc<Shard>) {
    let mut seconds = interval(Duration::from_secs(1));
    // A frozen process shall not find all its clients silent at once when it wakes up: a late tick counts as one.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        shard.advance();
    }
}

async fn take_parcels(shard: Rc<Shard>, mut inbox: Inbox) {
    while let Some(parcel) = inbox.recv().await {
        match parcel {
            Parcel::Turn(Turn { orders, .. }) => shard.carry_out(orders),
            Parcel::Admit(admission) => drop(spawn_local(client::serve(shard.clone(), admission))),
            Parcel::Visit(visit) => visit.begin(&shard),
            Parcel::KeepLink(pool, slot) => drop(spawn_local(keep_link(shard.clone(), pool, slot))),
        }
    }
}
