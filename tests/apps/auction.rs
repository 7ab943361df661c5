//! Test auction: several app servers that take bids on lots and store them in one file.
//!
//! Hub `/auction`: `Watch(lot)` returns the bids so far, and `Placed(bid)` follows for each new one · `Bid(id, lot,
//! amount)` returns the bid's number. Each bid is stored before it is announced and answered, and only once: a caller
//! without an answer repeats its bid with the same id, as a client does when bids involve money. An outbox on one app
//! server sends `Recorded(number)` for each bid to the watchers of its lot, at least once.

mod store;

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use clap::Args;
use tokio::net::TcpListener;
use tokio::time::sleep;
use trunkline::{Context, Hub, HubError, HubHandle, Server};

use store::{Bid, BidStore};

/// How often the outbox checks the store.
const OUTBOX_PAUSE: Duration = Duration::from_millis(50);

/// Test app server for an auction.
#[derive(Debug, Args)]
pub(crate) struct AuctionSettings {
    /// File for bids, shared by all app servers.
    #[arg(long)]
    store: PathBuf,
}

async fn watch(ctx: Context, State(store): State<BidStore>, lot: String) -> Result<Vec<Bid>, HubError> {
    // Join the group before reading the list: bids placed in between appear in both.
    ctx.join(&lot).await?;
    store.bids_of(lot).await.map_err(failed)
}

async fn bid(
    ctx: Context,
    State(store): State<BidStore>,
    id: String,
    lot: String,
    amount: u64,
) -> Result<u64, HubError> {
    let (bid, is_new) = store.place(Bid { number: 0, id, lot, amount }).await.map_err(failed)?;
    let number = bid.number;
    if is_new {
        ctx.clients().group(bid.lot.clone()).send("Placed", (bid,)).await?;
    }
    Ok(number)
}

/// Records all bids at the app server that has the lock of the outbox, whichever app server took them.
async fn record_all(auction: HubHandle, store: BidStore) {
    auction.linked().await;
    // Held until the process ends.
    let Ok(_lock) = store.lock_outbox().await else { return };
    loop {
        // After an error, the same bids are sent again.
        let _ = record(&auction, &store).await;
        sleep(OUTBOX_PAUSE).await;
    }
}

/// Sends again what proxies might not have received.
async fn record(auction: &HubHandle, store: &BidStore) -> Result<(), HubError> {
    let mut sent = Vec::new();
    for bid in store.unrecorded().await.map_err(failed)? {
        let receivers = auction.clients().group(bid.lot);
        sent.push((bid.number, receivers.send("Recorded", (bid.number,)).await?));
    }
    for (number, sent) in sent {
        if sent.acknowledged().await.is_err() {
            break;
        }
        store.mark_as_recorded(number).await.map_err(failed)?;
    }
    Ok(())
}

fn failed(error: anyhow::Error) -> HubError {
    HubError::new(format!("the store failed: {error:#}"))
}

pub(crate) async fn serve(listener: TcpListener, settings: AuctionSettings) -> anyhow::Result<()> {
    let store = BidStore::new(settings.store);
    let hub = Hub::new("/auction")
        .stateful_reconnect(true)
        .method("Watch", watch)
        .method("Bid", bid)
        .with_state(store.clone());
    let server = Server::new().hub(hub);
    let handle = server.handle();
    tokio::spawn(record_all(handle.hub("auction")?, store));
    let app = Router::new().route("/metrics", handle.metrics()).merge(server.into_router()?);
    Ok(trunkline::serve(listener, app, &handle).await?)
}
